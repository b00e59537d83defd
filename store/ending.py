"""How the store ends when it does not know what is durable: at once, for the next start finds out."""

import logging
import os
from typing import NoReturn

from paychan.exits import EXIT_FAILED

log = logging.getLogger("paychan.store")


def die(error: BaseException) -> NoReturn:
    """End the process at once: no handler, no flush and no answer may follow.

    There is no second attempt: after a failed sync the next one may return without the lost bytes, and would
    acknowledge them. An error before the write (a damaged block, a bug) leaves epochs in memory ahead of the disk; a
    restart heals that.
    """
    try:
        log.critical("a group could not be written, the store ends: %s: %s", type(error).__name__, error)
    finally:
        os._exit(EXIT_FAILED)
