"""Where the installed command `paychan-server` begins: an installation that has only the payer's parts gets one line."""

from ..parts import require_server


def main() -> None:
    """Run the command as __main__.py says."""
    require_server("paychan-server")
    from .__main__ import main as run

    run()
