"""`python -m paychan.server`: what the installed command `paychan-server` does."""

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main())
