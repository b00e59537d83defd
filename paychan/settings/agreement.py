"""What the three configurations say about each other, and what of the server's a reload cannot change."""

import os
from collections.abc import Callable
from typing import Any

from ..core.fees import LADDER
from ..core.network import LIVE
from ..rpc.connection import Address
from .models import ServerConfig, SignerConfig, StoreConfig

_FIXED: dict[str, Callable[[ServerConfig], Any]] = {
    "network": lambda config: config.common.network.name,
    "state_dir": lambda config: config.common.state_dir,
    "debug.enable": lambda config: config.common.debug,
    "http.host": lambda config: config.http_host,
    "http.port": lambda config: config.http_port,
    "http.workers": lambda config: config.workers,
    "metrics.listen": lambda config: config.metrics,
    "operator": lambda config: config.operator,
    "processes.store": lambda config: config.store,
    "processes.signer": lambda config: config.signer,
    "users": lambda config: config.common.users,
}
"""What other processes know, or granian's main process, which a reload does not replace."""


def disagreements(server: ServerConfig | None, store: StoreConfig | None, signer: SignerConfig | None) -> list[str]:
    """Return in which ways the three files do not describe one system, a line each. None: one that cannot be read."""
    problems: list[str] = []
    for other, key in ((store, "store"), (signer, "signer")):
        if server is not None and other is not None:
            problems += _two(server, other, server.store if key == "store" else server.signer, key)
    if store is not None and signer is not None and store.server_pubkey is None:
        paths = os.path.realpath(store.server_pubkey_file), os.path.realpath(signer.public_key_file)
        if paths[0] != paths[1]:
            problems.append(
                f"{store.common.source}: store.server_pubkey_file: is {paths[0]}, and the signer writes {paths[1]}"
                f" (signer.public_key_file in {signer.common.source})"
            )
    if store is not None and signer is not None and store.postgres and not signer.postgres and store.common.network is LIVE:
        problems.append(
            f"{signer.common.source}: postgres: is missing: {store.common.source} has it, so other machines may sign with this key,"
            " and none would know what the others have signed"
        )
    if server is not None and signer is not None and signer.fee_per_byte_max < max(server.fee_per_byte, server.fee_bounds.floor):
        problems.append(
            f"{signer.common.source}: policy.fee_per_byte_max: is below what the server expects to pay"
            f" (settlement.fee_per_byte and fee_per_byte_min in {server.common.source}): its settlements would be refused"
        )
    least_share = LADDER[0].share_percent
    if server is not None and signer is not None and server.price_is_settlement and signer.fee_share_percent_max < least_share:
        why = f"is below {least_share}: who pays the open price would not be settled (open.price in {server.common.source})"
        problems.append(f"{signer.common.source}: policy.fee_share_percent_max: {why}")
    if server is not None and signer is not None and signer.settlement_period < server.settlement_period:
        why = f"is shorter than settlement.period_hours in {server.common.source}: what is urgent there would be refused"
        problems.append(f"{signer.common.source}: policy.settlement_period_hours: {why}")
    return problems


def _two(server: ServerConfig, other: StoreConfig | SignerConfig, address: Address, key: str) -> list[str]:
    problems = []
    if other.common.network is not server.common.network:
        problems.append(f"{other.common.source}: network: differs from {server.common.source}")
    if other.common.users != server.common.users:
        problems.append(f"{other.common.source}: users: differs from {server.common.source}")
    if other.common.debug is not server.common.debug:
        problems.append(f"{other.common.source}: debug.enable: differs from {server.common.source}")
    if other.address != address and Address() not in (other.address, address):  # empty: it has been complained about
        problems.append(f"{server.common.source}: processes.{key}: differs from {other.common.source}")
    return problems


def needs_restart(before: ServerConfig, after: ServerConfig) -> list[str]:
    """Return the keys that differ and that a reload does not change."""
    return [key for key, value in _FIXED.items() if value(before) != value(after)]
