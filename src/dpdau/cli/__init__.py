"""Shell words for the verbs; `main` is the `dpdau` command."""

from dpdau.cli.root import main

__all__ = ["main"]
