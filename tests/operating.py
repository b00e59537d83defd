"""A system whose operator's API is served, tokens of each scope, and who asks there."""

import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.ports import free_port
from tests.selling import make_token
from tests.system import ROOT, Answer, System, running, wait_until

SCOPES = ("charge", "read", "watch", "settle", "steer")
"""In the order of `settings/tokens.py`: sellers' first, then operators', each of which may do what those before it may."""


def section(port: int, *more: str) -> dict[str, str]:
    """Return the change of server.toml that has the API served."""
    return {"[processes]": "\n".join(["[operator]", f'listen = "127.0.0.1:{port}"', *more, "", "[processes]"])}


def filled(route: Any) -> str:
    """Return the path of a route with something for each name in it, which there is not."""
    known = {"txid": "0" * 64, "vout": "0"}
    return re.sub(r"\{(\w+)\}", lambda name: known.get(name[1], "nothing"), route.path)


class Operator:
    """Asks at the API with a token; each request on a connection of its own, as commands do."""

    def __init__(self, port: int, token: str = "") -> None:
        self.port, self.token = port, token

    def ask(
        self, method: str, path: str, content: Any = None, raw: bytes | None = None, root: str = "/operator/v1"
    ) -> Answer:
        """path: below `root`. content: a body as JSON; raw: one as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        body = raw if raw is not None else None if content is None else json.dumps(content).encode()
        given = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            connection.request(method, f"{root}{path}", body, given)
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def is_there(self) -> bool:
        try:
            return self.ask("GET", "/openapi.json").status == 200
        except OSError:
            return False


def command(system: System, *words: str, token: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Run `paychan WORDS` as an operator does."""
    more = {"PAYCHAN_OPERATOR_TOKEN": token} if token else {}
    return subprocess.run(
        [sys.executable, "-m", "paychan", *words],
        capture_output=True, text=True, cwd=ROOT, check=False, timeout=120,
        env={**os.environ, "PAYCHAN_STATE_DIR": str(system.state_dir), **more, **env},
    )  # fmt: skip


@contextmanager
def operated(directory: Path, workers: int = 1, **more: Any) -> Iterator[tuple[System, dict[str, Operator]]]:
    """Run a system, and yield it with an operator for each scope once the API is served."""
    port = free_port()
    with running(directory, workers, changes={"server.toml": section(port)}, **more) as system:
        wait_until(Operator(port).is_there, 60, "serving the operator's API")
        yield system, {scope: Operator(port, make_token(system, f"of-{scope}", scope)) for scope in SCOPES}
