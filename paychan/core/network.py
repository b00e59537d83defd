"""Bitcoin networks as objects that are passed in. There is no global "selected network"."""

from dataclasses import dataclass

from bitcoin.base58 import Base58Error, CBase58Data

from .errors import Rejection


@dataclass(frozen=True)
class Network:
    """Chain parameters. Version bytes are those of base58check addresses; `genesis` is the first block's hash, as displayed."""

    name: str
    p2pkh_version: int
    p2sh_version: int
    genesis: str


LIVE = Network("live", 0x00, 0x05, "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f")
TEST = Network("test", 0x6F, 0xC4, "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943")
"""The test network is testnet3."""

REGTEST = Network("regtest", 0x6F, 0xC4, "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206")
"""Bitcoin Core's regtest has the test network's address versions."""

BY_NAME = {network.name: network for network in (LIVE, TEST, REGTEST)}

_HASH_SIZE = 20


def p2sh_address(network: Network, script_hash: bytes) -> str:
    """Return the base58check address of a 20-byte script hash (BIP 16)."""
    return str(CBase58Data.from_bytes(script_hash, network.p2sh_version))


def p2pkh_address(network: Network, key_hash: bytes) -> str:
    """Return the base58check address of a 20-byte public key hash."""
    return str(CBase58Data.from_bytes(key_hash, network.p2pkh_version))


def encode_address(network: Network, script: bytes) -> str:
    """Return the address that `decode_address` turned into this script pubkey."""
    if script[:1] == b"\xa9":
        return p2sh_address(network, script[2:22])
    return p2pkh_address(network, script[3:23])


def decode_address(network: Network, address: str) -> bytes:
    """Return the script pubkey that `address` stands for: 25 bytes for P2PKH, 23 for P2SH.

    Raises: Rejection("invalid_change_address") for anything but a P2PKH or P2SH address of this network.
    """
    try:
        data = CBase58Data(address)
    except (Base58Error, ValueError) as error:
        raise Rejection("invalid_change_address", parameter="change_address") from error
    payload = bytes(data)
    if len(payload) == _HASH_SIZE and data.nVersion == network.p2pkh_version:
        return b"\x76\xa9\x14" + payload + b"\x88\xac"
    if len(payload) == _HASH_SIZE and data.nVersion == network.p2sh_version:
        return b"\xa9\x14" + payload + b"\x87"
    raise Rejection("invalid_change_address", parameter="change_address")
