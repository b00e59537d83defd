"""Aim: what the README has a newcomer type works as printed. Method: its blocks are run against a real system, the port changed,
and the links of all documents followed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system import ROOT, running

README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted(path.relative_to(ROOT) for place in ("", "docs", "tests") for path in (ROOT / place).glob("*.md"))
SHIPPED_URL = "http://127.0.0.1:8000"


def block(language: str, port: int) -> str:
    (code,) = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert code.count(SHIPPED_URL) == 1
    return code.replace(SHIPPED_URL, f"http://127.0.0.1:{port}")


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with running(tmp_path_factory.mktemp("system")) as system:
        yield system


def run(command: list[str], place: Path) -> str:
    """Run what the README shows as a newcomer does, with `.venv/bin` on the path; return what it prints."""
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "XDG_DATA_HOME": str(place)}
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_first_payment_in_the_readme_works_as_printed(system, tmp_path):
    code = block("python", system.port)
    assert len(code.strip().splitlines()) <= 12
    opened, paid, closed = run([sys.executable, "-c", code], tmp_path).splitlines()
    assert "status='open'" in opened and "amount=83240," in opened
    assert "status='open'" in paid and "amount=5," in paid and "paid_value=83245," in paid
    assert "status='closed'" in closed and re.search(r"settlement_txid='[0-9a-f]{64}'", closed)
    assert {"shop.json", "shop.key"} <= {path.name for path in tmp_path.iterdir()}


def test_the_first_payment_by_command_works_as_printed(system, tmp_path):
    said = run(["sh", "-e", "-c", block("sh", system.port)], tmp_path)
    assert [re.findall(rf"(?m)^{key}: (.+)$", said)[-1] for key in ("name", "status", "paid value")] == ["shop", "closed", "83245"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_what_a_document_links_to_is_there(document):
    text = re.sub(r"```.*?```", "", (ROOT / document).read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text) + re.findall(r'src="([^"]+)"', text)
    assert [link for link in links if not (ROOT / document.parent / link).exists()] == []
