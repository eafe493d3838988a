# The task list. `make run` and `make test` are all that a fresh machine needs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# The suite starts many processes: each of them would compile what none of them kept.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
HOST ?= 127.0.0.1
PORT ?= 8000
SCRATCH := reports/smoke

.PHONY: screenshots load-test spark-package verify-deploy help setup run test lint fmt smoke bench backup-ledger placeholder-check precommit ci-guard lock docs strategies eval plots

help: ## Show the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

setup: $(STAMP) ## Build the environment in .venv from requirements.lock

$(STAMP): requirements.lock pyproject.toml hatch_build.py src/dpdau/rpc/v1/dpdau.proto
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "dpdau needs Python 3.11 or newer; found $$(python3 --version)."; exit 1; }
	@python3 -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.13'
	@echo "Installing the locked dependencies into $(VENV) ..."
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip sync --quiet --require-hashes requirements.lock
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --editable .
	@touch $(STAMP)

run: setup ## Start the service with real demo data, show its numbers, address and key
	@$(BIN)/dpdau serve --demo --host $(HOST) --port $(PORT)

test: setup ## Run all checks and tests, then write reports/budget-snapshot.json and coverage.xml
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint-and-smoke suite
	@echo "Wrote coverage.xml and reports/budget-snapshot.json."

.PHONY: lint-and-smoke suite
lint-and-smoke: # One after the other, beside the suite: they leave a core idle.
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory smoke

suite:
	@rm -f .coverage .coverage.*
	@$(BIN)/python -m pytest -q -n 2 --dist loadgroup --cov --cov-report=
	@$(BIN)/coverage xml -q

smoke: setup ## Real data in, numbers out, on a scratch data directory, through the command line
	@rm -rf $(SCRATCH) && mkdir -p $(SCRATCH)
	@cd $(SCRATCH) && export DATA_DIR=data && dpdau=$(abspath $(BIN))/dpdau && \
	  $$dpdau init >/dev/null && \
	  $$dpdau ingest --from cdnow >/dev/null && \
	  $$dpdau dau --day 1997-03-31 && $$dpdau wau --end 1997-03-31 && $$dpdau mau --end 1997-03-31 && \
	  $$dpdau audit && \
	  $$dpdau budget all --day 1997-03-31 --snapshot >/dev/null
	@cp $(SCRATCH)/data/reports/budget-snapshot.json reports/budget-snapshot.json

lint: setup ## Format, lint, types, import contracts
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>&1 | tail -n 20

fmt: setup ## Format and apply safe fixes
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

docs: setup ## Regenerate the reference pages and the OpenAPI snapshot
	@WRITE_OPENAPI=1 DPDAU_UPDATE_SNAPSHOTS=1 $(BIN)/python -m pytest -q tests/surface/test_docs.py tests/surface/test_openapi.py

.PHONY: site
site: setup ## Build the documents as a site in site/, with notebooks run; nothing in it needs a network
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Built site/index.html; to search it too: $(BIN)/python -m http.server --directory site"

screenshots: setup ## Walk through the running demo in Chromium and write docs/images/dashboard-*.png
	@$(BIN)/python tests/screenshots.py

backup-ledger: setup ## Copy the ledger of DATA_DIR, online and consistent, to DATA_DIR/backups
	@$(BIN)/dpdau backup

placeholder-check: setup ## Fail where a setting is undocumented, unread, or documented and gone
	@$(BIN)/python -m pytest -q tests/surface/test_docs.py -k setting

ci-guard: setup ## Fail where SERVICE_API_KEY is unset or a known default
	@$(BIN)/dpdau doctor --check api-key

precommit: lint placeholder-check ## What to run before a commit
	@$(BIN)/python -m pytest -q -n 2 -m 'not slow and not statistical'

verify-deploy: setup ## Check image, compose.yaml, chart, unit and Litestream, without an engine or a cluster
	@$(BIN)/python -m pytest -q tests/surface/test_deploy*.py tests/surface/test_scale.py tests/surface/deploy_litestream.py

spark-package: setup ## Pack what the executors of a Spark need of dpdau into dist/dpdau-spark.zip
	@$(BIN)/python deploy/spark/package.py dist/dpdau-spark.zip

load-test: setup ## Load on a service (LOAD_USERS, LOAD_SPAWN, LOAD_RUNTIME, LOAD_HOST, LOAD_TEST_SEED), into reports/load
	@$(BIN)/python -m load

strategies: setup ## Solve the shipped noise strategies again (minutes)
	@$(BIN)/python -m dpdau.mechanisms.matrix.strategies src/dpdau/mechanisms/matrix/data

eval: setup ## Run the experiment: the month plan beside other methods, ten minutes or more
	@if [ -d /dev/shm ]; then export TMPDIR="$${TMPDIR:-/dev/shm}"; fi; $(BIN)/dpdau eval

plots: setup ## Draw the figures of the experiment that `make eval` ran last
	@$(BIN)/dpdau plots

bench: setup ## Measure the product beside DuckDB, polars and OpenDP; BENCH="--sizes S,M,L --only bulk"
	@$(BIN)/python -m benchmarks $(BENCH)

lock: setup ## Resolve the dependencies again into requirements.lock (no index addresses)
	@$(BIN)/uv lock --quiet --upgrade
	@$(BIN)/uv export --quiet --no-header --no-annotate --no-emit-project --all-groups --all-extras -o requirements.lock
