"""`dpdau` as its command line runs it, at the time that a file says, with noise that adds nothing.

The figures of budgets that are only reported are left out, because they take seconds. Everything
else is the product: settings from `dpdau.toml`, sockets, files. `tests` must be on the module path.
Arguments: the file of the clock, then those of `dpdau`.
"""

import datetime as dt
import sys
from pathlib import Path
from typing import Any

from dpdau.app import App
from dpdau.cli.root import run
from products import ZeroNoise


def main() -> int:
    """Runs one command line."""
    clock = Path(sys.argv[1])
    opened = App.open

    def at_its_time(settings: Any, **options: Any) -> App:
        return opened(
            settings,
            clock=lambda: dt.datetime.fromisoformat(clock.read_text()),
            noise=ZeroNoise(),
            **{**options, "reported": False},
        )

    App.open = at_its_time  # type: ignore[method-assign, assignment]
    App.warm_up = lambda _: None  # type: ignore[method-assign]
    return run(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
