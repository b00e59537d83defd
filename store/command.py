"""Where the installed command `paychan-store` begins: an installation that has only the payer's parts gets one line."""

from paychan import printing
from paychan.parts import require_server


def main() -> int:
    """Run the command as serving.py says; return its exit status."""
    return printing.run("paychan-store", _main)


def _main() -> int:
    require_server("paychan-store")
    from .serving import command

    return command()
