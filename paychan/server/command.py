"""Where the installed command `paychan-server` begins: an installation that has only the payer's parts gets one line."""

from .. import printing
from ..parts import require_server


def main() -> int:
    """Run the command as serving.py says; return its exit status."""
    return printing.run("paychan-server", _main)


def _main() -> int:
    require_server("paychan-server")
    from .serving import command

    return command()
