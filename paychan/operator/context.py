"""What every route has at hand: the configuration of this machine."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import Unavailable
from ..rpc.store_client import StoreClient
from ..settings.load import load_server_config, load_store_config
from ..settings.models import ServerConfig, StoreConfig
from .following import Following
from .reading import BooksOfStore


@dataclass
class Context:
    """One in the operator's process. directory: that of the three files."""

    directory: Path
    config: ServerConfig
    store: StoreConfig
    trouble_since: dict[str, int] = field(default_factory=dict)
    """When each trouble was seen first, unix seconds: by its code, while it lasts."""
    books: "BooksOfStore | None" = None
    telling: Any = None  # the process' `Telling` (telling.py), which has this

    @property
    def run_dir(self) -> Path:
        """Where the sockets and the counts are."""
        return self.config.common.state_dir.absolute() / "run"

    @property
    def following(self) -> Following:
        """The books, and how fresh they are. Raises Unavailable before the process has begun with them."""
        return self._reading.following

    @property
    def store_client(self) -> StoreClient:
        """The connection to the store, which only reads. Raises Unavailable, as `following`."""
        return self._reading.store

    @property
    def _reading(self) -> BooksOfStore:
        if self.books is None:
            raise Unavailable("store_unavailable")
        return self.books

    @property
    def machine(self) -> str:
        """This machine's name in a cluster, or empty."""
        return self.config.cluster.machine if self.config.cluster is not None else ""


def read_context(directory: Path) -> Context:
    """Return the context of a directory of configurations. Raises ConfigError."""
    return Context(directory, load_server_config(directory / "server.toml"), load_store_config(directory / "store.toml"))
