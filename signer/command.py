"""Where the installed command `paychan-signer` begins: an installation that has only the payer's parts gets one line."""

from paychan.parts import require_server


def main() -> int:
    """Run the command as __main__.py says; return its exit status."""
    require_server("paychan-signer")
    from .__main__ import main as run

    return run()
