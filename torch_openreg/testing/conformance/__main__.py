"""`python -m torch_openreg.testing.conformance ARGS` is `openreg conformance ARGS`."""

import sys

from torch_openreg.cli import main

if __name__ == "__main__":
    sys.exit(main(["conformance", *sys.argv[1:]]))
