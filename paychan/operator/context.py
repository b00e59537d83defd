"""What every route has at hand: the configuration of this machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..settings.load import load_server_config, load_store_config
from ..settings.models import ServerConfig, StoreConfig


@dataclass
class Context:
    """One in the operator's process. directory: that of the three files."""

    directory: Path
    config: ServerConfig
    store: StoreConfig
    telling: Any = None  # the process' `Telling` (telling.py), which has this

    @property
    def run_dir(self) -> Path:
        """Where the sockets and the counts are."""
        return self.config.common.state_dir.absolute() / "run"

    @property
    def machine(self) -> str:
        """This machine's name in a cluster, or empty."""
        return self.config.cluster.machine if self.config.cluster is not None else ""


def read_context(directory: Path) -> Context:
    """Return the context of a directory of configurations. Raises ConfigError."""
    return Context(directory, load_server_config(directory / "server.toml"), load_store_config(directory / "store.toml"))
