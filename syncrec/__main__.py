"""`python -m syncrec` is the command `syncrec`."""

import sys

from syncrec.cli import main

if __name__ == "__main__":
    sys.exit(main())
