"""From the configuration to the chain backend that it names."""

from pathlib import Path

from ..core.errors import ConfigError
from ..settings.models import ChainConfig, Common
from .base import ChainBackend
from .bitcoind import BitcoindChain
from .debug import DebugChain
from .esplora import EsploraChain
from .fixture import FixtureChain


def make_chain(config: ChainConfig, common: Common, fee_per_byte: int) -> ChainBackend:
    """Return the backend; `fee_per_byte` (satoshi) is what those without a source of estimates say. Raises ConfigError."""
    if config.backend == "debug":
        return DebugChain(common.state_dir, fee_per_byte)
    if config.backend == "fixture" and config.fixture_file is not None:
        return FixtureChain(common.state_dir, fee_per_byte, config.fixture_file)
    if config.backend == "bitcoind":
        return BitcoindChain(
            config.bitcoind_host,
            config.bitcoind_port,
            common.network,
            cookie=config.bitcoind_cookie_file,
            user=config.bitcoind_user,
            password=_read_password(config.bitcoind_password_file, common),
            wallet=config.bitcoind_wallet,
            watched_max=config.bitcoind_watched_max,
        )
    if config.backend == "esplora":
        try:
            return EsploraChain(config.esplora_urls, config.esplora_agree, common.network)
        except ValueError as error:
            raise ConfigError(f"{common.source}: esplora.urls: {error}") from error
    raise AssertionError("the configuration's check knows all backends")


def _read_password(path: Path | None, common: Common) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{common.source}: bitcoind.password_file: {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{common.source}: bitcoind.password_file: {path}: holds no text") from error
