"""A command goes without data frames, also where they are installed."""

import subprocess
import sys


def test_a_command_loads_no_data_frames() -> None:
    """The array library converts without pandas, which is as good as missing."""
    code = """
import sys
from dpdau.cli.frames import hide_data_frames
hide_data_frames()
import pyarrow as pa
assert [1, 0] == pa.array([1, None]).fill_null(0).to_numpy(zero_copy_only=False).tolist()
assert "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_library_that_is_built_on_data_frames_finds_them() -> None:
    """What was hidden is there again, and nothing else of the search has changed."""
    code = """
import sys
from dpdau.cli.frames import hide_data_frames, show_data_frames
before = list(sys.meta_path)
hide_data_frames()
assert len(sys.meta_path) == len(before) + 1
show_data_frames()
assert sys.meta_path == before
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
