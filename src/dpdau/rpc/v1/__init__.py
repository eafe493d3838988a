"""The messages of `dpdau.proto` as Python modules; the build makes them (`hatch_build.py`)."""
