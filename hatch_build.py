"""Builds the modules of the gRPC front from its .proto file, for wheels and editable installs."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ProtocHook(BuildHookInterface[Any]):
    """Writes `dpdau_pb2.py`, its types and `dpdau_pb2_grpc.py` beside `dpdau.proto`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Runs protoc; the modules are not in version control."""
        from grpc_tools import protoc

        source = Path(self.root, "src")
        faults = protoc.main(
            [
                "protoc",
                f"--proto_path={source}",
                f"--proto_path={files('grpc_tools') / '_proto'}",
                f"--python_out={source}",
                f"--pyi_out={source}",
                f"--grpc_python_out={source}",
                "dpdau/rpc/v1/dpdau.proto",
            ]
        )
        if faults:
            raise RuntimeError("protoc refused src/dpdau/rpc/v1/dpdau.proto")
