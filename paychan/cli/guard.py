"""Around every command of `paychan`: each expected failure is one line on standard error, and an exit status."""

import argparse
from collections.abc import Callable

from ..client import ClientError, Refused
from ..core.errors import ConfigError, Rejection
from ..exits import status_of
from .output import EXIT_REFUSED, EXIT_STATUS, EXIT_UNKNOWN, CommandError, StatusError, UsageError, exit_status, print_error

Command = Callable[[argparse.Namespace], int]


def guarded(command: Command, arguments: argparse.Namespace) -> int:
    """Run a command; return its exit status."""
    try:
        return command(arguments)
    except ConfigError as error:
        return print_error(arguments, "", str(error), status_of(error))
    except StatusError as error:
        return print_error(arguments, "http_status", str(error), EXIT_STATUS)
    except CommandError as error:
        return print_error(arguments, "", str(error), EXIT_REFUSED)
    except Rejection as error:
        return print_error(arguments, error.code, error.detail, exit_status(Refused(error.detail, error.code)))
    except UsageError as error:
        return print_error(arguments, "usage", str(error), exit_status(error))
    except ClientError as error:
        return print_error(arguments, error.code, error.detail, exit_status(error))
    except KeyboardInterrupt:
        detail = "what was under way may be done; a payment is kept and sent first next time"
        return print_error(arguments, "interrupted", detail, EXIT_UNKNOWN)
