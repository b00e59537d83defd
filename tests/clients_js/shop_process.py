"""The example shop as a process beside a system: `shop_of(system)` yields its URL."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.ports import free_port
from tests.system import ROOT, System, wait_until

_SERVER = """
import sys
sys.path.insert(0, "examples/page")
from granian.constants import Interfaces
from granian.server import Server
import shop
Server("shop:app", port=int(sys.argv[1]), interface=Interfaces.ASGI, websockets=False, log_enabled=True).serve()
"""


@contextlib.contextmanager
def shop_of(system: System, regtest: Path | None = None, output: Path | None = None) -> Iterator[str]:
    """Run examples/page/shop.py at the system's sellers' door; yield its URL once it answers."""
    port = free_port()
    door = str(system.state_dir.absolute() / "run" / "sell.sock")
    env = {**os.environ, "SHOP": json.dumps([door, "", str(regtest or "")]), "PYTHONPATH": str(ROOT / "examples" / "page")}
    env["PAYCHAN_STATE_DIR"] = str(system.state_dir)
    log = open(output, "w") if output else subprocess.DEVNULL  # noqa: SIM115
    process = subprocess.Popen([sys.executable, "-c", _SERVER, str(port)], cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: process.poll() is not None or _answers(port), 30, "starting the shop")
        assert process.poll() is None, output.read_text() if output else "the shop has ended"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/articles/promise")
        return connection.getresponse().status == 402
    except OSError:
        return False
    finally:
        connection.close()
