"""`python -m paychan.metrics FILE`: what the supervisor starts."""

import sys

from .command import main

sys.exit(main())
