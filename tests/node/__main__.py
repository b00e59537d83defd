"""`python -m tests.node [--config DIR] COMMAND`: a Bitcoin node on regtest for people, beside `./runEverything.sh config/regtest/`.

    run                         start the node that DIR/server.toml names, until SIGTERM; makes a signer key if there is none
    mine N [--address A]        mine N blocks
    fund ADDRESS SATOSHI        pay to an address; mine a block to confirm it
    tx TXID [--json | --hex]    what became of a transaction
    time UNIX_SECONDS           move the node's clock; the chain's median time follows after 6 blocks

Address, port and credentials are those of DIR/server.toml (default: config/regtest); PAYCHAN_STATE_DIR is honoured. Blocks are kept
in the state directory's `node.blocks`; transactions that wait are not. Like Bitcoin Core, each start writes a new cookie file.
"""

import argparse
import ctypes
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from bitcoin.base58 import CBase58Data

from paychan import logs
from paychan.core.errors import ConfigError, Rejection
from paychan.core.network import REGTEST, decode_address
from paychan.core.units import COIN
from paychan.exits import EXIT_BAD_CONFIG
from paychan.settings.load import load_server_config, load_signer_config
from paychan.settings.models import ServerConfig
from signer.keys import create_key

from .bcoin_node import COINBASE_MATURITY, Node, NodeError, NodeMissing

FIRST_BLOCKS = COINBASE_MATURITY + 10
"""A new chain starts with so many blocks: recent ones, so that it is trusted, and some coinbases that can be spent."""

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.node", description="a Bitcoin node on regtest, to try things")
    parser.add_argument("--config", type=Path, default=Path("config/regtest"), metavar="DIR", help="default: config/regtest")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[ServerConfig, argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        subparser = commands.add_parser(name, help=text, description=text)
        subparser.set_defaults(command=command)
        return subparser

    add("run", _run, "start the node, until SIGTERM")
    mine = add("mine", _mine, "mine blocks")
    mine.add_argument("count", type=int, metavar="N")
    mine.add_argument("--address", metavar="A", help="who gets the coinbases (default: the purse that `fund` pays from)")
    fund = add("fund", _fund, "pay to an address")
    fund.add_argument("address", metavar="ADDRESS")
    fund.add_argument("value", type=int, metavar="SATOSHI")
    show = add("tx", _show, "what became of a transaction")
    show.add_argument("txid", metavar="TXID")
    form = show.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--hex", action="store_true", help="print the transaction itself")
    add("time", _time, "move the node's clock").add_argument("seconds", type=int, metavar="UNIX_SECONDS")

    arguments = parser.parse_args()
    try:
        arguments.command(_config(arguments.config), arguments)
    except ConfigError as error:
        print(f"node: {error}", file=sys.stderr)
        return EXIT_BAD_CONFIG
    except (NodeError, NodeMissing, OSError, Rejection) as error:
        print(f"node: {error}", file=sys.stderr)
        return 1
    return 0


def _config(directory: Path) -> ServerConfig:
    config = load_server_config(directory / "server.toml")
    if config.common.network is not REGTEST or config.chain.bitcoind_cookie_file is None:
        raise ConfigError(f"{config.common.source}: bitcoind.cookie_file: this node is for regtest, with a cookie file")
    return config


def _cookie_file(config: ServerConfig) -> Path:
    assert config.chain.bitcoind_cookie_file is not None
    return config.chain.bitcoind_cookie_file


def _running(config: ServerConfig) -> Node:
    """Return the node that `run` started, in another process."""
    _, _, api_key = _cookie_file(config).read_text().strip().partition(":")
    return Node(port=config.chain.bitcoind_port, api_key=api_key)


def _run(config: ServerConfig, arguments: argparse.Namespace) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    state_dir = config.common.state_dir
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    key_file = load_signer_config(arguments.config / "signer.toml").key_file
    if not key_file.exists():
        create_key(key_file)
    with Node(state_dir / "node.blocks", config.chain.bitcoind_port) as node:
        _write_cookie(_cookie_file(config), node.api_key)
        if node.height < FIRST_BLOCKS:
            node.mine(FIRST_BLOCKS - node.height)
        ready = {"name": "tests.node", "msg": f"bitcoin node ready at 127.0.0.1:{node.port}, height {node.height}"}
        print(logs.LineFormatter("node").format(logging.makeLogRecord(ready | {"levelname": "INFO"})), flush=True)
        try:
            raise NodeError(node.wait(), "the node has ended")
        except KeyboardInterrupt:
            return


def _write_cookie(path: Path, api_key: str) -> None:
    temporary = path.with_name(path.name + ".new")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(f"__cookie__:{api_key}")
    os.replace(temporary, path)


def _mine(config: ServerConfig, arguments: argparse.Namespace) -> None:
    node = _running(config)
    node.mine(arguments.count, script=decode_address(REGTEST, arguments.address) if arguments.address else None)
    print(f"height: {node.height}")


def _fund(config: ServerConfig, arguments: argparse.Namespace) -> None:
    node = _running(config)
    node.adopt_coin()
    funding = node.fund(decode_address(REGTEST, arguments.address), arguments.value)
    print(f"{funding.txid[::-1].hex()}:0:{funding.value}")


def _time(config: ServerConfig, arguments: argparse.Namespace) -> None:
    _running(config).set_time(arguments.seconds)


def _show(config: ServerConfig, arguments: argparse.Namespace) -> None:
    node = _running(config)
    found = node.rpc("getrawtransaction", arguments.txid, 1)
    if arguments.hex:
        print(found["hex"])
        return
    outputs = [_output(output) for output in found["vout"]]
    spent = [_spent(node, spends) for spends in found["vin"] if "txid" in spends]
    size = len(found["hex"]) // 2
    fee = sum(spent) - sum(output["value"] for output in outputs) if spent else 0
    shown = {"txid": found["txid"], "confirmations": found.get("confirmations") or 0, "fee": fee, "size": size, "outputs": outputs}
    if arguments.json:
        print(json.dumps(shown))
        return
    print(f"confirmations: {shown['confirmations']}\nfee: {fee} satoshi for {size} bytes")
    for output in outputs:
        print(f"pays: {output['value']} satoshi to {output['address']}")


def _spent(node: Node, spends: dict[str, Any]) -> int:
    return _satoshi(node.rpc("getrawtransaction", spends["txid"], 1)["vout"][spends["vout"]]["value"])


def _output(output: dict[str, Any]) -> dict[str, Any]:
    return {"value": _satoshi(output["value"]), "address": _address(bytes.fromhex(output["scriptPubKey"]["hex"]))}


def _satoshi(amount: Decimal | int) -> int:
    return int(amount * COIN)


def _address(script: bytes) -> str:
    """Return a P2PKH or P2SH script's address, as Bitcoin Core writes it on regtest (bcoin has other version bytes)."""
    if len(script) == 25 and script[:3] == b"\x76\xa9\x14":
        return str(CBase58Data.from_bytes(script[3:23], REGTEST.p2pkh_version))
    if len(script) == 23 and script[:2] == b"\xa9\x14":
        return str(CBase58Data.from_bytes(script[2:22], REGTEST.p2sh_version))
    return script.hex()


if __name__ == "__main__":
    sys.exit(main())
