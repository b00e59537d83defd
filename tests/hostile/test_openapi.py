"""Aim: the published description of v1 is true. Method: its codes, headers and routes are compared with the code's; then requests
made
from it are sent to a real server, through both doors (the full run: `python -m tests.hostile.openapi`)."""

import ast
import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from paychan.core.errors import BY_CODE, Rejection
from paychan.server.doors import headers, routes
from paychan.server.protocol import replies, sales
from tests.ports import free_port
from tests.selling import Seller, make_token, sell_changes
from tests.system import running

SELLERS_FROM = 100  # codes that only the sellers' door gives
DESCRIPTION = Path(routes.__file__).with_name("openapi.json")
METHODS = ("get", "put", "post", "delete", "options")
TXID = "ab" * 32


@pytest.fixture(scope="module")
def described():
    return json.loads(DESCRIPTION.read_text())


def operations(described):
    return [(method, path, item[method]) for path, item in described["paths"].items() for method in METHODS if method in item]


def test_every_code_stands_under_its_status_and_no_other(described):
    listed = {}
    for name, response in described["components"]["responses"].items():
        ((_, content),) = response["content"].items()
        properties = content["schema"]["allOf"][1]["properties"]
        assert name == f"Problem{properties['status']['const']}"
        listed.update(dict.fromkeys(properties["code"]["enum"], properties["status"]["const"]))
    public = {row.code: row.status for row in BY_CODE.values() if row.number < SELLERS_FROM}
    assert listed == public
    assert described["components"]["schemas"]["Problem"]["properties"]["code"]["enum"] == list(public)


def test_headers_are_those_that_are_sent(described):
    sent = {name: value for name, value in headers.SUCCESS_HEADERS if name != "content-type"}
    listed = {name.lower(): header["schema"].get("const") for name, header in described["components"]["headers"].items()}
    assert {name: listed[name] for name in sent} == sent
    assert set(listed) - set(sent) == {"location", "retry-after", "access-control-max-age"}
    assert listed["access-control-max-age"] == str(headers.PREFLIGHT_SECONDS)
    for method, _, operation in operations(described):
        for status, response in operation["responses"].items():
            if "$ref" in response:
                response = described["components"]["responses"][response["$ref"].rpartition("/")[2]]
                assert ("Retry-After" in response["headers"]) == (status in ("429", "503"))
            assert {name.lower() for name in response["headers"]} >= set(sent)
        if method == "options":
            assert "Access-Control-Max-Age" in operation["responses"]["200"]["headers"]


def test_every_route_is_described_and_no_other(described):
    """Each described operation is asked of `routes`, with a worker that notes its calls; each call of it in the source is
    reached."""
    called = set()

    def note(name):
        async def call(*_):
            called.add(name)
            return replies.Reply(200)

        return call

    names = {
        node.func.attr
        for node in ast.walk(ast.parse(Path(routes.__file__).read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") == "worker"
    }
    worker = SimpleNamespace(**{name: note(name) for name in names})
    worker.ready = lambda: called.add("ready") or replies.Reply(200)
    for method, path, _ in operations(described):
        target = path.format(funding_txid=TXID, funding_vout="0")
        assert asyncio.run(routes._answer(worker, method.upper(), target, "", b"")).status == 200
    assert called == names
    paths = [path.format(funding_txid=TXID, funding_vout="0") for path in described["paths"]]
    for path in paths:
        for method in ("GET", "POST", "DELETE", "OPTIONS"):  # a PUT of anything is a payment's, and refused there
            if (method.lower(), path) in {(m, p.format(funding_txid=TXID, funding_vout="0")) for m, p, _ in operations(described)}:
                continue
            with pytest.raises(Rejection, match="no_such_route"):
                asyncio.run(routes._answer(worker, method, path, "", b""))


def test_references_lead_somewhere(described):
    def walk(node):
        if isinstance(node, dict):
            if "$ref" in node:
                place = described
                for part in node["$ref"].removeprefix("#/").split("/"):
                    place = place[part]
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(described)


def test_a_server_publishes_it_and_answers_as_it_says(tmp_path):
    from tests.hostile.openapi import examine

    own_port = free_port()
    with running(tmp_path, changes={"server.toml": {"base_port": f"base_port = {own_port}"}}) as system:
        for port in (system.port, own_port):
            system_url = f"http://127.0.0.1:{port}"
            found = examine(system_url, 12)
            assert len(found) == 14  # all but the description itself
            assert sum(sum(statuses.values()) for statuses in found.values()) > 100
        answer = system.client().request("GET", "/v1/openapi.json")
        assert (answer.status, answer.body) == (200, DESCRIPTION.read_bytes())
        assert answer.headers["content-type"] == "application/json"
        assert not any("Traceback" in line or "internal error" in line for line in system.output)


# --- the sellers' door ---

SELLERS = Path(routes.__file__).with_name("sell.json")


def test_what_sellers_may_ask_for_is_described_member_by_member():
    described = {
        verb["properties"]["do"]["const"]: (set(verb["properties"]), set(verb["properties"]) - set(verb["required"]))
        for verb in json.loads(SELLERS.read_text())["components"]["schemas"]["Sale"]["oneOf"]
    }
    assert described == {name: (set(verb.members), set(verb.optional)) for name, verb in sales._VERBS.items()}


def test_the_sellers_door_publishes_it_and_answers_as_it_says(tmp_path):
    from tests.hostile.openapi import examine

    port = free_port()
    with running(tmp_path, changes=sell_changes(f"port = {port}")) as system:
        token = make_token(system, "examiner")
        found = examine(
            f"http://127.0.0.1:{port}", 15, 1, "/v1/sell/openapi.json", {"Authorization": f"Bearer {token}"}
        )
        assert len(found) == 4  # all but the description itself
        assert {404, 400} <= set(found["POST /v1/sell"]) and 200 in found["GET /v1/sell/channels"]
        answer = Seller(system, token, port).request("GET", "/v1/sell/openapi.json")
        assert (answer.status, answer.body) == (200, SELLERS.read_bytes())
        assert not any("Traceback" in line or "internal error" in line for line in system.output)
