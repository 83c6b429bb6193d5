"""`python -m pillow_cwic` is the same program as `pillow-cwic`."""

import sys

from .tools.cli import main

if __name__ == "__main__":
    sys.exit(main())
