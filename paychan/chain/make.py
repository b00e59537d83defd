"""From the configuration to the chain backend that it names."""

from ..config import ChainConfig, Common
from .base import ChainBackend
from .debug import DebugChain
from .fixture import FixtureChain


def make_chain(config: ChainConfig, common: Common, fee_per_byte: int) -> ChainBackend:
    """Return the backend; `fee_per_byte` (satoshi) is what those without a source of estimates say."""
    if config.backend == "debug":
        return DebugChain(common.state_dir, fee_per_byte)
    if config.backend == "fixture" and config.fixture_file is not None:
        return FixtureChain(common.state_dir, fee_per_byte, config.fixture_file)
    raise AssertionError("the configuration's check names the backends")
