"""Aim: the examples of channels run as they stand, with nothing of ours but the public client; without a server they say so.
Method: real processes, a debug server. Those that sell and buy: test_selling_examples.py."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from paychan.client import PayerPhase, parse_record, read_state
from tests.ports import free_port
from tests.settled import settled_change
from tests.system import ROOT, running

EXAMPLES = sorted((ROOT / "examples").glob("pay*.py"))
PRICE = 83240


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with running(tmp_path_factory.mktemp("system")) as found:
        yield found


def run(example: str, directory: Path, *arguments: str) -> str:
    command = [sys.executable, str(ROOT / "examples" / example), *arguments]
    env = {"PYTHONPATH": str(ROOT), "TMPDIR": str(directory)}
    done = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


def settled_values(system, directory: Path) -> list[int]:
    """Return what was paid on each channel below `directory`, by its settlement and by its state file, which must agree."""
    values = []
    for path in directory.rglob("*.json"):
        record = parse_record(read_state(path))
        assert record.phase is PayerPhase.CLOSED
        raw = system.broadcast()[record.settlement_txid]
        assert settled_change(raw, record.settlement_txid, record.terms) == record.change_value
        values.append(record.paid_value)
    return values


def test_there_are_examples_for_both_faces():
    assert [path.name for path in EXAMPLES] == ["pay.py", "pay_async.py"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_uses_the_public_client_alone(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    assert {name for name in names if name.split(".")[0] not in sys.stdlib_module_names} == {"paychan.client"}
    assert 'else "http://127.0.0.1:8000"' in path.read_text()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_without_a_server_says_so_in_one_line(tmp_path, path):
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, str(path), url]
    env = {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{path.name}: unreachable: {url}: Connection refused\n"
    assert not list(tmp_path.rglob("*.key"))


@pytest.mark.parametrize("arguments", [1, 2])
def test_pay(system, tmp_path, arguments):
    out = run("pay.py", tmp_path, f"http://127.0.0.1:{system.port}", *[str(tmp_path / "kept")][: arguments - 1])
    assert re.findall(r"^(\w+): ", out, re.M) == ["opened", "paid", "paid", "paid", "closed"]
    assert settled_values(system, tmp_path) == [PRICE + 15]
    assert (tmp_path / "kept" / "shop.json").exists() == (arguments == 2)


@pytest.mark.parametrize("arguments", [1, 2])
def test_pay_async(system, tmp_path, arguments):
    out = run("pay_async.py", tmp_path, f"http://127.0.0.1:{system.port}", *[str(tmp_path / "kept")][: arguments - 1])
    assert out == f"paid: [{PRICE + 50}, {PRICE + 50}, {PRICE + 50}]\n"
    assert sorted(settled_values(system, tmp_path)) == [PRICE + 50] * 3
