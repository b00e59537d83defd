"""Aim: `pip install paychan` brings what a payer's code imports, the extras `server` and `gateway` the rest. Method:
pyproject.toml is compared with the imports of the shipped modules. That the two installations work is for tests/packages."""

import ast
import re
import sys
import tomllib

import pytest

from paychan import parts
from tests.unit.test_layering import ROOT, SHIPPED, module_name, python_imports, within

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMPORTED_AS = {"python-bitcoinlib": "bitcoin"}
COMES_WITH = {"yarl": "aiohttp"}
"""What a dependency takes and gives in its own interface."""

NOT_FOREIGN = {"paychan", "store", "signer", "libc", "cpython", "cython", *sys.stdlib_module_names}
GATEWAY = "paychan.gateway"
CLUSTER = ("paychan.database", "store.engines.postgres", "signer.shared")
SERVERS = (
    *("paychan.server", "paychan.operator", "paychan.webhooks", "paychan.database", "paychan.doctor"),
    *("store", "signer", GATEWAY),
)
ADAPTERS = {
    "aiohttp": {"aiohttp"},
    "httpx": {"httpx"},
    "httpx2": {"httpx2"},
    "pympp": {"mpp", "httpx", "pydantic"},
    "requests": {"requests"},
    "x402": {"x402"},
}
"""HTTP clients and SDKs of others, by the module of paychan.pay that is for who has them. No other module imports them."""
SELLERS = "paychan.sell"
RECEIPTS = "paychan.receipts"
SIGNING = ("keys", "issuer", "verify")
"""Its modules that need the extra `receipts`; the others are pure."""
FRAMEWORKS = {
    "fastapi": {"fastapi"},
    "flask": {"flask", "werkzeug"},
    "django": {"django"},
    "mcpserver": {"mcp", "mcp_types"},
    "x402": {"x402", "httpx"},
}
"""What a seller has, or not: each is imported by the module of its name alone. orjson is used where it is."""


def brought_by(requirements):
    names = {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}
    return {IMPORTED_AS.get(name, name) for name in names}


def foreign(file):
    """The packages of others that a module imports, wherever in it."""
    if file.suffix == ".pyx":
        names = re.findall(r"(?m)^(?:from|import)\s+(\w+)", file.read_text())
    else:
        names = {name.partition(".")[0] for name in python_imports(file)}
    return {COMES_WITH.get(name, name) for name in set(names) - NOT_FOREIGN}


def imported(is_servers, *without):
    files = [
        file
        for file in SHIPPED
        if file.suffix in (".py", ".pyx")
        and within(module_name(file), *SERVERS) == is_servers
        and not within(module_name(file), SELLERS, RECEIPTS, *without)
    ]
    adapted = {file: set() if is_servers else ADAPTERS.get(file.stem, set()) for file in files}
    return set().union(*(foreign(file) - adapted[file] for file in files))


def test_a_payers_installation_brings_what_a_payers_code_imports_and_no_more():
    assert imported(is_servers=False) == brought_by(PROJECT["dependencies"])


def test_the_extra_brings_what_the_servers_code_imports_besides():
    extra = brought_by(PROJECT["optional-dependencies"]["server"])
    assert imported(True, GATEWAY, *CLUSTER) - imported(is_servers=False) == extra == set(parts.SERVER)


def test_the_gateways_extra_brings_what_it_imports_besides():
    extra = brought_by(PROJECT["optional-dependencies"]["gateway"]) - {"paychan"}
    assert "paychan[server]" in PROJECT["optional-dependencies"]["gateway"]
    brought = {COMES_WITH.get(name, name) for name in parts.GATEWAY}
    assert imported(True, *CLUSTER) - imported(True, GATEWAY, *CLUSTER) == extra == brought


def test_the_clusters_extra_brings_what_a_store_on_postgresql_imports_besides():
    extra = brought_by(PROJECT["optional-dependencies"]["cluster"]) - {"paychan"}
    assert "paychan[server]" in PROJECT["optional-dependencies"]["cluster"]
    assert imported(True, GATEWAY) - imported(True, GATEWAY, *CLUSTER) == extra == set(parts.CLUSTER)


def test_a_sellers_middleware_needs_its_framework_and_nothing_else():
    payers = brought_by(PROJECT["dependencies"])
    for file in SHIPPED:
        if file.suffix == ".py" and within(module_name(file), SELLERS):
            assert foreign(file) <= payers | {"orjson"} | FRAMEWORKS.get(file.stem, set()), file


def test_signatures_of_receipts_need_their_extra_and_nothing_else():
    payers, extra = brought_by(PROJECT["dependencies"]), brought_by(PROJECT["optional-dependencies"]["receipts"])
    for file in SHIPPED:
        if within(module_name(file), RECEIPTS):
            assert foreign(file) <= payers | (extra if file.stem in SIGNING else set()), file


def test_who_develops_has_the_server_too():
    extras = PROJECT["optional-dependencies"]
    assert "paychan[cluster,gateway,receipts]" in extras["dev"] and "paychan[server]" in extras["gateway"]


def test_modules_that_a_payer_has_import_no_server_when_they_are_loaded():
    for file in SHIPPED:
        if file.suffix == ".py" and not within(module_name(file), *SERVERS):
            loaded = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ImportFrom)]
            assert not [node.module for node in loaded if re.match(r"(paychan\.)?server\b", node.module or "")], file


def test_what_is_missing_is_named_with_the_way_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr(parts, "find_spec", lambda name: None if name in ("granian", "uvloop") else object())
    with pytest.raises(SystemExit, match="2"):
        parts.require_server("paychan-store")
    assert capsys.readouterr() == ("", "paychan-store: needs granian, uvloop: pip install 'paychan[server]'\n")
    monkeypatch.setattr(parts, "find_spec", lambda name: object())
    parts.require_server("paychan-store")
