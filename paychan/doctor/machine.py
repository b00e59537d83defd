"""What the checks are given: the three configurations, and what several of them need to know, asked once."""

from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from ..parts import SERVER
from ..ready import pid_at, ready_state
from ..rpc.connection import Address
from ..settings.directory import Directory, read_directory
from ..settings.models import Common, ServerConfig, SignerConfig, StoreConfig
from .verdicts import NotAsked

Config = TypeVar("Config")


@dataclass(frozen=True)
class Machine:
    """One configuration directory on this machine. A configuration that cannot be read is asked for in vain: NotAsked."""

    directory: Path

    @cached_property
    def files(self) -> Directory:
        """What the three files say, and what is wrong with them."""
        return read_directory(self.directory)

    @property
    def server(self) -> ServerConfig:
        return _need(self.files.server, "server.toml")

    @property
    def store(self) -> StoreConfig:
        return _need(self.files.store, "store.toml")

    @property
    def signer(self) -> SignerConfig:
        return _need(self.files.signer, "signer.toml")

    @property
    def commons(self) -> dict[str, Common]:
        """What is common to all files, of those that can be read, by process; at least one."""
        found = {"server": self.files.server, "store": self.files.store, "signer": self.files.signer}
        commons = {name: config.common for name, config in found.items() if config is not None}
        if not commons:
            raise NotAsked("none of the three files can be read")
        return commons

    @property
    def state_dirs(self) -> dict[Path, list[str]]:
        """The state directories, and whose each is; mostly there is one."""
        found: dict[Path, list[str]] = {}
        for name, common in self.commons.items():
            found.setdefault(common.state_dir.absolute(), []).append(name)
        return found

    @cached_property
    def ready(self) -> dict[str, object]:
        """What /readyz of the running server says; empty if there is none."""
        return ready_state(self.server)

    @cached_property
    def pids(self) -> dict[str, int]:
        """The process ids of the signer and the store that answer at their addresses; 0 on TCP."""
        wanted: dict[str, Address] = {}
        if self.files.signer is not None:
            wanted["signer"] = self.files.signer.address
        if self.files.store is not None:
            wanted["store"] = self.files.store.address
        found = {}
        for name, address in wanted.items():
            try:
                found[name] = pid_at(address)
            except OSError:
                continue
        return found


def need_server_parts() -> None:
    """Raises NotAsked in a payer's installation."""
    if missing := [name for name in SERVER if find_spec(name) is None]:
        raise NotAsked(f"the server's parts are not installed ({', '.join(missing)})")


def _need(config: Config | None, name: str) -> Config:
    if config is None:
        raise NotAsked(f"{name} cannot be read")
    return config
