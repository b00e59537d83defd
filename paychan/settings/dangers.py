"""What a configuration may say, and must not: each check here says how money, or a key, would be lost.

The forms of single values are checked where they are read (load.py); this is about what values mean. Most of it holds for real
money only (`live`); what is wrong everywhere is refused everywhere.
"""

import os
import stat
from hashlib import new as new_hash
from hashlib import sha256
from pathlib import Path

from ..core.settlement import INFLATION_MAX, SETTLEMENT_SIZE_MAX
from ..core.units import SECONDS_PER_HOUR
from ..rpc.connection import Address
from .hosts import host_of, is_loopback, is_near, trouble_with_url
from .models import ChainConfig, ServerConfig, SignerConfig
from .sections import Section

SETTLEMENT_PERIOD_HOURS_MIN = 4
"""Below it a settlement may miss its expiry on mainnet: block times drift by 2 h, and 6 blocks can take 2.8 h."""

DURATION_HOURS_MAX = 3 * 8760
"""Three years: what is received stays unsettled for as long, on one key and one disk."""

SETTLEMENT_CONFIRMATIONS_MIN = 3
"""A settlement in fewer blocks may be reorganised away after we have stopped to look at it."""

DEEP_VALUE, DEEP_CONFIRMATIONS_MIN = 10_000_000, 3
"""Satoshi from which on a funding output needs so many blocks: below, a miner's double spend costs more than it brings."""

TIP_AGE_MINUTES_MAX = 24 * 60
"""Three blocks a day are the fewest that there ever were: an older tip is a node that is stuck, and refunds go unseen."""

FEE_PER_BYTE_LIVE_MIN = 20
"""Satoshi: a ceiling below it kept settlements out of blocks for weeks in past fee rises, beyond their channels' expiries."""

SIGNER_FEE_PER_BYTE_LIVE_MAX = 5000
"""Satoshi: above what any block ever asked; a broken-into server could burn so much of each channel."""

FEE_SHARE_PERCENT_LIVE_MAX = 95
SIGNER_PERIOD_HOURS_LIVE_MAX = 72
LOOKUPS_LIVE_MAX = 1000
"""Beyond it a flood of opens would keep the node from telling us of blocks and spent outputs."""

OTHER_PORTS = {18332: "testnet3", 48332: "testnet4", 38332: "signet", 18443: "regtest"}
VOLATILE = ("/dev/shm", "/run", "/var/run", "/proc", "/sys", "/dev")
"""Directories that are empty after a restart of the machine."""

EXAMPLE_PASSWORDS = frozenset(
    {
        "",
        "password",
        "pass",
        "rpcpassword",
        "changeme",
        "secret",
        "bitcoin",
        "bitcoinrpc",
        "test",
        "user",
        "123456",
        "your_password",
    }
)
"""Of guides and sample configurations; the node's RPC port would do whatever anybody asks."""

PUBLISHED_PUBKEYS = frozenset(
    {
        "0225b3aaf58992a8cc909522c2ec859ef218fd29fda0a6723cfb4e0529f80cc8f3",
        "03b5ad36dca793edf4664cd51b4d3fb41d35d0bd92c60f62ed08b2b55fdb2c5a6d",
        "0237cfd0f32ef969ebab7078b51a77f4a90db8db9ca76f20c71e041a0f212e6ec3",
    }
)
"""Public keys whose secrets are printed in public: the original's two sample configurations, and our test vectors."""

_SAMPLE_HASHES = {
    "0000000000000000000000000000000000000000": "belongs to nobody: nobody has its key",
    "ffffffffffffffffffffffffffffffffffffffff": "belongs to nobody: nobody has its key",
    "759d6677091e973b9e9d99f19c68fbf43e3f05f9": "belongs to nobody: nobody has its key",  # 1BitcoinEaterAddressDontSend...
    "62e907b15cbf27d5425399ebf6f0fb50ebb88f18": "is the sample of countless guides, not yours",  # the first block's
}


def hash160(data: bytes) -> bytes:
    return new_hash("ripemd160", sha256(data).digest()).digest()


def pays_to_key(script: bytes, pubkey: bytes) -> bool:
    """Return whether an address script is that of a public key's own address: by its hash, or (P2TR) by the key itself."""
    return hash160(pubkey) in script or pubkey[1:] in script


# --- everywhere ---


def trouble_with_path(path: Path) -> str:
    """Return what is wrong with a configured path."""
    if any(not symbol.isprintable() for symbol in str(path)):
        return "holds characters that cannot be printed"
    return "must not lead upwards (..)" if ".." in path.parts else ""


def check_state_dir(root: "Section", state_dir: Path, is_live: bool, is_debug: bool) -> None:
    why = trouble_with_path(state_dir)
    if why:
        root.fail("state_dir", why)
    elif state_dir.absolute() == Path("/"):
        root.fail("state_dir", "must not be the root directory: what is in it would be open to all")
    elif is_live and any(state_dir.absolute().is_relative_to(place) for place in VOLATILE):
        root.fail("state_dir", "is lost at the next restart of the machine: the key and all payments with it")
    elif not is_debug and (open_place := _open_to_others(state_dir)):
        root.fail("state_dir", f"others may write to {open_place}: who renames what is in it is store and signer")


def _open_to_others(state_dir: Path) -> str:
    """Return the first place on the way to a state directory, or at its end, that other users may write to, empty if there is none.

    A parent like /tmp, whose sticky bit keeps what is in it for its owner, is none; the state directory itself must be ours alone.
    Both ways are looked at, with symbolic links and without: who may change a link leads us elsewhere.
    """
    ways = (state_dir.absolute(), Path(os.path.realpath(state_dir)))
    for place in dict.fromkeys(place for way in ways for place in (way, *way.parents)):
        try:
            mode = place.stat().st_mode
        except OSError:
            continue  # it will be made, for us alone
        if mode & stat.S_IWOTH and (place in ways or not mode & stat.S_ISVTX):
            return str(place)
    return ""


def check_address(section: "Section", key: str, address: "Address", state_dir: Path, is_live: bool) -> None:
    """A socket outside the state directory, which only we may enter, could be taken by somebody else before us; unless the other
    end is known by its user."""
    if address.path:
        path = Path(address.path)
        if trouble_with_path(path):
            section.fail(key, trouble_with_path(path))
        elif not path.is_relative_to(state_dir.absolute()) and address.user is None:
            section.fail(key, "must be below the state directory, which nobody else may enter")
    elif is_live and address.port:
        section.fail(key, "must be a Unix socket on network live: every user of this machine could connect to a port")


def check_server(config: "ServerConfig", root: "Section") -> None:
    """Note what is dangerous in a server's configuration."""
    http, direct, opening = root.table("http"), root.table("direct"), root.table("open")
    if config.public_url and (why := trouble_with_url(config.public_url)):
        http.fail("public_url", why)
    if config.direct_public_host and not config.direct_base_port:
        direct.fail("public_host", "needs direct.base_port: clients would be sent to a port that nobody listens on")
    if config.funding_value_max < config.open_price:
        opening.fail("funding_value_max", "is below the open price: no channel could be opened")
    steps = config.confirmations_from
    if any(a[0] >= b[0] or a[1] >= b[1] for a, b in zip(steps, steps[1:], strict=False)):
        opening.fail("confirmations_from", "must rise, in satoshi and in confirmations")
    if config.common.network.name == "live":
        _check_live_server(config, root)


def check_signer(config: "SignerConfig", root: "Section") -> None:
    """Note what is dangerous in a signer's configuration."""
    section, policy = root.table("signer"), root.table("policy")
    for key, path in (("key_file", config.key_file), ("public_key_file", config.public_key_file)):
        if why := trouble_with_path(path):
            section.fail(key, why)
    if config.key_file.absolute() == config.public_key_file.absolute():
        section.fail("public_key_file", "is the key file: the secret key would be overwritten")
    if config.common.network.name != "live":
        return
    for pubkey in PUBLISHED_PUBKEYS:
        if pays_to_key(config.destination_script, bytes.fromhex(pubkey)):
            policy.fail("funds_destination_address", "has a published key: anyone could spend what is settled")
    hashes = (config.destination_script[2:22].hex(), config.destination_script[3:23].hex())  # P2SH or P2WPKH, P2PKH
    for sample in filter(None, map(_SAMPLE_HASHES.get, hashes)):
        policy.fail("funds_destination_address", sample)
    if config.fee_per_byte_max > SIGNER_FEE_PER_BYTE_LIVE_MAX:
        policy.fail(
            "fee_per_byte_max", f"must be at most {SIGNER_FEE_PER_BYTE_LIVE_MAX} on network live: it bounds what can be burnt"
        )
    if config.fee_per_byte_max < FEE_PER_BYTE_LIVE_MIN:
        policy.fail(
            "fee_per_byte_max", f"must be at least {FEE_PER_BYTE_LIVE_MIN} on network live: settlements would miss their expiry"
        )
    if config.fee_share_percent_max > FEE_SHARE_PERCENT_LIVE_MAX:
        policy.fail("fee_share_percent_max", f"must be at most {FEE_SHARE_PERCENT_LIVE_MAX} on network live: all could be burnt")
    if config.versions_max < 2:
        policy.fail("versions_max", "must be at least 2 on network live: no fee could be raised")
    if config.settlement_period > SIGNER_PERIOD_HOURS_LIVE_MAX * SECONDS_PER_HOUR:
        policy.fail(
            "settlement_period_hours",
            f"must be at most {SIGNER_PERIOD_HOURS_LIVE_MAX} on network live: so long a settlement may burn nearly everything",
        )
    if config.fee_sum_per_day_max // 2 < FEE_PER_BYTE_LIVE_MIN * (SETTLEMENT_SIZE_MAX + INFLATION_MAX):
        policy.fail("fee_sum_per_day_max", "does not pay for one settlement a day on network live")


# --- real money ---


def _check_live_server(config: "ServerConfig", root: "Section") -> None:
    http, direct, opening = root.table("http"), root.table("direct"), root.table("open")
    settlement, exposure = root.table("settlement"), root.table("exposure")
    if not is_near(config.http_host):
        http.fail("host", "must be a loopback or private address on network live: it speaks plain HTTP, TLS is in front of it")
    if config.public_url.startswith("http://") and not is_near(host_of(config.public_url)):
        http.fail("public_url", "must be https:// on network live: whoever reads a payment can close its channel")
    if config.direct_base_port == config.http_port:  # elsewhere, a second system with PORT=8001 simply takes the next one
        direct.fail("base_port", "is the shared port (http.port or PORT)")
    if config.direct_public_host and not is_near(config.direct_public_host):
        direct.fail("public_host", "must be a loopback or private address on network live: own ports speak plain HTTP")
    if config.funding_tx_min_conf < 1:
        opening.fail("funding_tx_min_conf", "must be at least 1 on network live")
    if config.funding_value_max >= DEEP_VALUE and config.confirmations_needed(DEEP_VALUE) < DEEP_CONFIRMATIONS_MIN:
        opening.fail(
            "confirmations_from",
            f"must ask for {DEEP_CONFIRMATIONS_MIN} from {DEEP_VALUE} satoshi on, or funding_value_max be lower",
        )
    if config.duration_min < SECONDS_PER_HOUR:
        opening.fail("duration_hours_min", "must be at least 1 on network live: a channel would be settled before it is paid on")
    if config.duration_max > DURATION_HOURS_MAX * SECONDS_PER_HOUR:
        opening.fail("duration_hours_max", f"must be at most {DURATION_HOURS_MAX} on network live")
    if config.settlement_period_hours < SETTLEMENT_PERIOD_HOURS_MIN:
        settlement.fail("period_hours", f"must be at least {SETTLEMENT_PERIOD_HOURS_MIN} on network live")
    if config.settlement_confirmations < SETTLEMENT_CONFIRMATIONS_MIN:
        settlement.fail("confirmations", f"must be at least {SETTLEMENT_CONFIRMATIONS_MIN} on network live: blocks are reorganised")
    if config.fee_bounds.ceiling < max(config.fee_per_byte, FEE_PER_BYTE_LIVE_MIN):
        settlement.fail("fee_per_byte_max", f"must be at least fee_per_byte, and {FEE_PER_BYTE_LIVE_MIN}, on network live")
    if config.fee_bounds.floor > config.fee_per_byte:
        settlement.fail("fee_per_byte_min", "exceeds fee_per_byte: channels could be opened that never pay for their settlement")
    _check_exposure(config, opening, exposure)
    _check_live_chain(config.chain, root)


def _check_exposure(config: "ServerConfig", opening: "Section", exposure: "Section") -> None:
    for section, key in ((opening, "funding_value_max"), (exposure, "channel_value_max"), (exposure, "total_value_max")):
        if not section.has(key):
            section.fail(key, "is missing: on network live, what can be lost is bounded")
    for key, why in troubles_with_exposure(config):
        exposure.fail(key, why)


def troubles_with_exposure(config: "ServerConfig") -> list[tuple[str, str]]:
    """Return which limits of `exposure` contradict each other or others, and why."""
    found = []
    if config.channel_exposure_max > config.funding_value_max:
        found.append(("channel_value_max", "exceeds open.funding_value_max, so it bounds nothing"))
    if config.channel_exposure_max < config.open_price:
        found.append(("channel_value_max", "is below the open price: every channel would be settled at once"))
    if config.total_exposure_max < config.channel_exposure_max:
        found.append(("total_value_max", "is below channel_value_max"))
    if config.unsettled_value_max < config.total_exposure_max + config.channel_exposure_max:
        why = "is below total_value_max and channel_value_max: payments would stop at each settling"
        found.append(("unsettled_value_max", why))
    return found


def _check_live_chain(chain: "ChainConfig", root: "Section") -> None:
    section, bitcoind, esplora = root.table("chain"), root.table("bitcoind"), root.table("esplora")
    if chain.tip_age_max > TIP_AGE_MINUTES_MAX * 60:
        section.fail(
            "tip_age_minutes_max", f"must be at most {TIP_AGE_MINUTES_MAX} on network live: a stuck node would be believed"
        )
    if chain.lookups_per_second > LOOKUPS_LIVE_MAX:
        section.fail("lookups_per_second", f"must be at most {LOOKUPS_LIVE_MAX} on network live")
    if chain.backend == "bitcoind":
        if not is_loopback(chain.bitcoind_host):
            bitcoind.fail("host", "must be this machine on network live: RPC is not encrypted; use a tunnel")
        if chain.bitcoind_port in OTHER_PORTS:
            bitcoind.fail("port", f"is that of {OTHER_PORTS[chain.bitcoind_port]}")
    elif chain.backend == "esplora":
        if chain.esplora_agree < 2 and not all(map(is_loopback, map(host_of, chain.esplora_urls))):
            esplora.fail("agree", "must be at least 2 on network live: one server could invent coins")
        if any(name in url.lower() for url in chain.esplora_urls for name in ("testnet", "signet", "regtest")):
            esplora.fail("urls", "names another network")


# --- files ---


def check_secret_file(section: "Section", key: str, path: Path | None, group_may_read: bool) -> None:
    """Note that a file with a credential is open to others. One that is not there yet is no matter of permissions."""
    if path is None:
        return
    if why := trouble_with_path(path):
        section.fail(key, why)
        return
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return
    if mode & (0o007 if group_may_read else 0o077):
        section.fail(key, f"{path} is open to {'others' if group_may_read else 'group or others'}: they could use the node")


def check_password(section: "Section", key: str, path: Path | None) -> None:
    """Note that a password is one of those printed in guides."""
    try:
        text = path.read_text().strip() if path is not None else "-"
    except OSError:
        return
    except ValueError:
        section.fail(key, f"{path} holds no text")
        return
    if text.lower() in EXAMPLE_PASSWORDS:
        section.fail(key, f"{path} holds an example's password, or none")
