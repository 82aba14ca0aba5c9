"""`python -m evalrun`: the same as the command."""

import sys

from evalrun.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
