# The service in a container: no root, no shell needed, nothing written but DATA_DIR and /tmp.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG UV_VERSION=0.13.9
ENV UV_LINK_MODE=copy UV_NO_CACHE=1 VIRTUAL_ENV=/opt/dpdau
WORKDIR /src
RUN python -m pip install --quiet --no-cache-dir --disable-pip-version-check "uv==${UV_VERSION}" \
 && python -m venv --without-pip /opt/dpdau
# One lock serves all: what a service needs is resolved under it, and installed with its hashes.
COPY pyproject.toml requirements.lock ./
RUN uv pip compile --quiet --no-header --no-annotate --constraint requirements.lock \
      --extra postgres --extra kafka --extra grpc --output-file runtime.txt pyproject.toml \
 && uv pip install --quiet --require-hashes --compile-bytecode \
      --constraint requirements.lock --requirement runtime.txt
COPY README.md LICENSE hatch_build.py ./
COPY src ./src
RUN uv pip install --quiet --no-deps --compile-bytecode --build-constraint requirements.lock .

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="dpdau" \
      org.opencontainers.image.description="Differentially private active-user counts" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 dpdau \
 && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin dpdau \
 && install --directory --mode 0700 --owner 10001 --group 10001 /data /etc/dpdau
COPY --from=build /opt/dpdau /opt/dpdau
ENV PATH=/opt/dpdau/bin:$PATH \
    DATA_DIR=/data \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# Settings come from the environment, or from a dpdau.toml that is mounted here.
WORKDIR /etc/dpdau
USER 10001:10001
VOLUME ["/data"]
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import urllib.request as web; web.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["dpdau"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
