"""`python -m dynin`, and the program `dynin`."""

import sys

from dynin.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
