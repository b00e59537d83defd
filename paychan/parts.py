"""Which parts are installed: `pip install paychan` brings the payer's, `pip install 'paychan[server]'` also the server's."""

import sys
from importlib.util import find_spec

from .settings.load import EXIT_BAD_CONFIG

SERVER = ("granian", "orjson", "rocksdict", "uvloop")
"""What the extra `server` of pyproject.toml brings, by the names that are imported."""


def require_server(command: str) -> None:
    """Return if the server's parts are there. If not, say in one line how to get them, and end with status 2."""
    missing = [name for name in SERVER if find_spec(name) is None]
    if missing:
        print(f"{command}: needs {', '.join(missing)}: pip install 'paychan[server]'", file=sys.stderr)
        sys.exit(EXIT_BAD_CONFIG)
