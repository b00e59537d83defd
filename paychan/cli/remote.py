"""Operators' commands from another machine: the operator's API, asked over HTTP by the standard library."""

import argparse
import http.client
import json
import os
import ssl
from pathlib import Path
from typing import Any

from ..client.wire import parse_url
from .arguments import url
from .output import CommandError, UsageError

VARIABLE = "PAYCHAN_OPERATOR_TOKEN"
"""The token, where no file has it."""

SECONDS_MAX = 40.0
"""More than a settlement takes over there."""

ANSWER_BYTES_MAX = 64 << 20


def add_place(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the arguments that say which system is meant: CONFIG_DIR on the spot, or --server from anywhere."""
    parser.add_argument("config_dir", type=Path, metavar="CONFIG_DIR", nargs="?", help=f"{what}; or --server")
    add_server(parser, is_required=False)


def add_server(parser: argparse.ArgumentParser, is_required: bool) -> None:
    """Add the arguments that say where an API is."""
    parser.add_argument("--server", type=url, metavar="URL", required=is_required, help="the operator's API")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help=f"holds the token; else {VARIABLE} does")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="certificates to trust instead of the system's")


class Remote:
    """One system's API. Redirects are not followed, and no proxy is asked: the token goes nowhere else."""

    def __init__(self, server_url: str, token: str, ca: Path | None) -> None:
        """Raises UsageError, CommandError."""
        self._server, self._token, self._context = parse_url(server_url), token, None
        if not self._server.is_tls and not self._server.is_loopback:
            raise UsageError("--server must be https://: the token would cross the network in plain text")
        if ca is not None and not self._server.is_tls:
            raise UsageError("--ca is for https://")
        if self._server.is_tls:
            try:
                self._context = ssl.create_default_context(cafile=None if ca is None else str(ca))
            except (OSError, ssl.SSLError) as error:
                raise CommandError(f"{ca}: holds no certificates: {error}") from error

    def ask(self, method: str, path: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what is answered, problems too: those have a `code`. Raises CommandError."""
        server = self._server
        connection: http.client.HTTPConnection
        if self._context is not None:
            connection = http.client.HTTPSConnection(server.host, server.port, timeout=SECONDS_MAX, context=self._context)
        else:
            connection = http.client.HTTPConnection(server.host, server.port, timeout=SECONDS_MAX)
        body = None if content is None else json.dumps(content).encode()
        try:
            headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
            connection.request(method, f"{server.prefix}/operator/v1{path}", body, headers)
            response = connection.getresponse()
            found: object = json.loads(response.read(ANSWER_BYTES_MAX))
        except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
            raise CommandError(f"{server.origin}: gives no answer of the operator's API: {error}") from error
        finally:
            connection.close()
        if not isinstance(found, dict) or not (200 <= response.status < 300 or "code" in found):
            raise CommandError(f"{server.origin}: gives no answer of the operator's API: status {response.status}")
        return found

    def get(self, member: str, method: str, path: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do the same, and raise CommandError for a refusal, or what has no such member."""
        found = self.ask(method, path, content)
        if "code" in found and "status" in found:
            raise CommandError(f"{found.get('detail')} ({found['code']})")
        if member not in found:
            raise CommandError(f"{self._server.origin}: is of another version: its answer has no {member}")
        return found


def remote_of(arguments: argparse.Namespace) -> Remote | None:
    """Return the API that is meant, None if the system of CONFIG_DIR is. Raises UsageError, CommandError."""
    if (arguments.server is None) == (arguments.config_dir is None):
        raise UsageError("give either CONFIG_DIR, or --server URL")
    if arguments.server is None:
        if arguments.token_file is not None or arguments.ca is not None:
            raise UsageError("--token-file and --ca are for --server")
        return None
    return Remote(arguments.server, _token(arguments.token_file), arguments.ca)


def _token(file: Path | None) -> str:
    """Return the token, which is never shown. Raises CommandError."""
    if file is None:
        token = os.environ.get(VARIABLE, "")
        if not token:
            raise UsageError(f"--token-file is missing, and {VARIABLE} is not set")
    else:
        try:
            token = file.read_text("ascii")
        except (OSError, ValueError) as error:
            raise CommandError(f"{file}: cannot be read as a token") from error
    token = token.strip()
    if not token.isascii() or not token.isprintable() or " " in token or not token:
        raise CommandError("the token is none: it is one word of letters and digits")
    return token
