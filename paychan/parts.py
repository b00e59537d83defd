"""Which parts are installed: `pip install paychan` brings the payer's, `pip install 'paychan[server]'` also the server's."""

import sys
from importlib.util import find_spec

from .exits import EXIT_BAD_CONFIG
from .printing import say

SERVER = ("granian", "orjson", "rocksdict", "uvloop")
"""What the extra `server` of pyproject.toml brings, by the names that are imported."""


GATEWAY = ("aiohttp", "yarl")
"""What the extra `gateway` brings besides; yarl comes with aiohttp."""


CLUSTER = ("asyncpg",)
"""What the extra `cluster` brings besides."""


def require_server(command: str) -> None:
    """Return if the server's parts are there. If not, say in one line how to get them, and end with status 2."""
    _require(command, SERVER, "server")


def require_gateway(command: str) -> None:
    """Do the same for the gateway's parts."""
    _require(command, (*SERVER, *GATEWAY), "gateway")


def require_cluster(command: str) -> None:
    """Do the same for the parts of a store or a signer on PostgreSQL."""
    _require(command, (*SERVER, *CLUSTER), "cluster")


def _require(command: str, names: tuple[str, ...], extra: str) -> None:
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        say(f"{command}: needs {', '.join(missing)}: pip install 'paychan[{extra}]'")
        sys.exit(EXIT_BAD_CONFIG)
