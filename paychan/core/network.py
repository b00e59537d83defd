"""Bitcoin networks as objects that are passed in. There is no global "selected network"."""

from dataclasses import dataclass

from bitcoin.base58 import Base58Error, CBase58Data

from .address_script import P2PKH, P2SH, is_address_script
from .bech32 import decode_segwit
from .errors import Rejection


@dataclass(frozen=True)
class Network:
    """Chain parameters. chain: Bitcoin Core's name of it. Version bytes are those of base58check addresses, the prefix
    that of segwit addresses (BIP 173); `genesis` is the first block's hash, as displayed."""

    name: str
    chain: str
    p2pkh_version: int
    p2sh_version: int
    bech32_prefix: str
    genesis: str


LIVE = Network("live", "main", 0x00, 0x05, "bc", "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f")
TEST = Network("test", "test", 0x6F, 0xC4, "tb", "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943")
"""The test network is testnet3. All others but the live one have its versions in base58check."""

TESTNET4 = Network("testnet4", "testnet4", 0x6F, 0xC4, "tb", "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043")
SIGNET = Network("signet", "signet", 0x6F, 0xC4, "tb", "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6")
"""A signet of somebody's own has the same first block, and differs in who signs its blocks."""

REGTEST = Network("regtest", "regtest", 0x6F, 0xC4, "bcrt", "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206")

BY_NAME = {network.name: network for network in (LIVE, TEST, TESTNET4, SIGNET, REGTEST)}

OP_1 = 0x51


def caip2(network: Network) -> str:
    """Return the chain's name in CAIP-2: of namespace bip122, the first 32 digits of its genesis block's hash."""
    return f"bip122:{network.genesis[:32]}"


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
    """Return the script pubkey that `address` stands for: P2PKH, P2SH (base58check), P2WPKH, P2WSH (Bech32) or P2TR (Bech32m).

    Raises: Rejection("invalid_change_address") for anything but such an address of this network.
    """
    for read in (_base58, _segwit):
        script = read(network, address)
        if is_address_script(script):
            return script
    raise Rejection("invalid_change_address", parameter="change_address")


def _base58(network: Network, address: str) -> bytes:
    """Return a script for what is in base58check and has a version of this network, an empty one for anything else."""
    try:
        data = CBase58Data(address)
    except (Base58Error, ValueError):
        return b""
    for version, (_, head, tail) in ((network.p2pkh_version, P2PKH), (network.p2sh_version, P2SH)):
        if data.nVersion == version:
            return head + bytes(data) + tail
    return b""


def _segwit(network: Network, address: str) -> bytes:
    """Return the script of a segwit address of this network, an empty one for anything else."""
    try:
        prefix, version, program = decode_segwit(address)
    except ValueError:
        return b""
    opcode = OP_1 + version - 1 if version else 0
    return bytes((opcode, len(program))) + program if prefix == network.bech32_prefix else b""
