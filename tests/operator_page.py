"""A system whose operator's page is served, with a token of each scope."""

import http.client
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_port
from tests.selling import make_token
from tests.system import Answer, System, running, wait_until

SCOPES = ("watch", "settle", "steer")


@dataclass
class Page:
    """Where the page is, and tokens by scope."""

    system: System
    port: int
    tokens: dict[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, scope: str = "watch") -> Answer:
        """Ask for a path; `scope` "" shows no token."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            headers = {"Authorization": f"Bearer {self.tokens[scope]}"} if scope else {}
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def is_there(self) -> bool:
        with suppress(OSError):
            return self.get("/", "").status == 200
        return False

    def view(self, name: str) -> dict:
        """Return what a view of the API answers."""
        answer = self.get(f"/operator/v1/{name}")
        assert answer.status == 200, answer.body
        return answer.json


@contextmanager
def with_page(directory: Path, workers: int = 1) -> Iterator[Page]:
    port = free_port()
    section = f'[operator]\nlisten = "127.0.0.1:{port}"\n\n[processes]'
    with running(directory, workers, changes={"server.toml": {"[processes]": section}}) as system:
        page = Page(system, port, {scope: make_token(system, f"of-{scope}", scope) for scope in SCOPES})
        wait_until(page.is_there, 60, "serving the operator's page")
        yield page
