"""`python -m torch_openreg` is the `openreg` command."""

import sys

from torch_openreg.cli import main

if __name__ == "__main__":
    sys.exit(main())
