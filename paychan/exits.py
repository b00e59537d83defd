"""The exit statuses that all our programs share, and which of them a failure deserves. 0 is done, 1 refused."""

import errno
import os

from .core.errors import ConfigError

EXIT_BAD_CONFIG = 2
"""A configuration that must not run, or wrong usage: the same again ends the same."""

EXIT_UNPRINTED = 10
"""What was asked for is done, but its result could not be written to standard output."""

EXIT_FAILED = 70
"""EX_SOFTWARE: the machine failed, or we did. Starting again may help, once there is room on the disk for example."""

EXIT_INTERRUPTED = 130
"""As a shell counts a program that Ctrl-C ended."""

_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOBUFS)
_PASSING_TEXTS = (*map(os.strerror, _PASSING), "database or disk is full", "disk I/O error")
"""As RocksDB and SQLite say it, which have no numbers for us."""


def may_pass(error: BaseException) -> bool:
    """Return whether an error is the machine's, of a kind that no change of a configuration mends."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _PASSING
    return any(text in str(error) for text in _PASSING_TEXTS)


def status_of(error: ConfigError) -> int:
    """Return the exit status of a program that cannot start. What failed stands in the error's cause, if anything did."""
    return EXIT_FAILED if error.__cause__ is not None and may_pass(error.__cause__) else EXIT_BAD_CONFIG
