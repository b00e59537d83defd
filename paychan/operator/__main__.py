"""`python -m paychan.operator CONFIG_DIR`: what the supervisor starts."""

import sys

from .command import main

sys.exit(main())
