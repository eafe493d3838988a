"""`python -m dpdau` is the `dpdau` command."""

from dpdau.cli import main

if __name__ == "__main__":
    main()
