"""Aim: a checkout starts or says in one line what to do: new, moved, copied, half made, read-only, with another Python.

Method: the real setupVenv.sh, venv and pip on a small checkout, whose one package stands for ours and whose lock has what
builds it: each set-up takes seconds. That the real checkout is made so is what everybody sees who runs the tests.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.system import ROOT

SETUP = """
from setuptools import setup
setup(name="paychan", version="0", packages=["paychan", "paychan._fast"])
"""
RUN = """#!/bin/sh
set -eu
ROOT=$(dirname "$(readlink -f "$0")")
NEEDS=${NEEDS:-run}
. "$ROOT/setupVenv.sh"
exec "$VENV_PYTHON" -P -c 'import paychan; print(paychan.WORD)'
"""
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
OTHER_USER = 65534
PYTHON = "/usr/bin/python3" if os.geteuid() == 0 and os.access("/usr/bin/python3", os.X_OK) else os.path.realpath(sys.executable)
"""root's own Python may be out of others' reach."""


def locked(name: str, file: Path = ROOT / "requirements.txt") -> str:
    """Return what a lock says of one package."""
    (entry,) = re.findall(rf"(?m)^{name}==.*(?:\n    --hash.*)*", file.read_text())
    return entry + "\n"


class Checkout:
    """A small checkout with the real setupVenv.sh. `bin` comes first in the PATH of what it runs."""

    def __init__(self, place: Path, directory: Path) -> None:
        self.place, self.bin = place, directory / "bin"
        self.bin.mkdir()
        (place / "paychan" / "_fast").mkdir(parents=True)
        (place / "bench" / "load").mkdir(parents=True)
        for file in ("paychan/_fast/a.pyx", "paychan/_fast/a.pxd", "bench/load/b.pyx", "paychan/_fast/__init__.py"):
            (place / file).write_text("")
        self.say("first")
        (place / "setup.py").write_text(SETUP)
        (place / "pyproject.toml").write_text(
            '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        )
        shutil.copy(ROOT / "setupVenv.sh", place)
        (place / "requirements.txt").write_text(locked("setuptools"))
        (place / "requirements-dev.txt").write_text(locked("setuptools") + locked("iniconfig", ROOT / "requirements-dev.txt"))
        (place / "run.sh").write_text(RUN)
        (place / "run.sh").chmod(0o755)

    def say(self, word: str) -> None:
        (self.place / "paychan" / "__init__.py").write_text(f"WORD = {word!r}\n")

    def fake_python(self, name: str, version: str, does: str = "") -> None:
        """Put a Python into PATH that says it is of a version which this machine may not have."""
        (self.bin / name).write_text(f"#!/bin/sh\n{does}\necho '{version} (fake)'\n")
        (self.bin / name).chmod(0o755)

    def path_without_node(self) -> str:
        """Return a PATH in which there is only what setting up needs."""
        for name in ("sh", "env", "dirname", "readlink", "sha256sum", "cut", "cat", "flock", "gcc", "rm"):
            (self.bin / name).symlink_to(shutil.which(name) or pytest.fail(f"no {name}"))
        return str(self.bin)

    def start(self, path: str = "", user: int | None = None, script: Path | None = None, **env: str) -> subprocess.Popen[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PAYCHAN", "PYTHON"))}
        clean |= {"PATH": path or f"{self.bin}:{SYSTEM_PATH}", "PYTHON": PYTHON}
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user is not None else []
        command.append(str(script or self.place / "run.sh"))
        return subprocess.Popen(command, cwd="/", env={**clean, **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **more)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def stamps(self) -> dict[str, int]:
        files = (self.place / ".venv").glob(".[a-z]*")  # from Python 3.13 on, venv puts a .gitignore there
        return {file.name: file.stat().st_mtime_ns for file in files if file.name != ".gitignore"}

    def take_away_writing(self) -> None:
        for path in [self.place, *self.place.rglob("*")]:
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o777 & ~0o222 | 0o444)


@pytest.fixture
def checkout():
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)  # others may come in, which pytest's own directories do not let them
        made = Checkout(Path(directory, "a place with blanks"), Path(directory))
        yield made
        for path in [made.place, *made.place.rglob("*")]:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)


def word(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that a checkout says that cannot be set up."""
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def test_a_checkout_is_made_once(checkout):
    """From a lock that does not fit, over links to it and changes in it, to where nothing can be written."""
    right = (checkout.place / "requirements.txt").read_text()
    (checkout.place / "requirements.txt").write_text(re.sub(r"sha256:[0-9a-f]{8}", "sha256:" + "0" * 8, right))
    done = checkout.run()
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "paychan: requirements.txt could not be installed; the lines above say why"
    (checkout.place / "requirements.txt").write_text(right)
    assert word(checkout.run()) == "first"

    made = checkout.stamps()
    assert set(made) == {".made", ".installed-run", ".built"}
    (checkout.place.parent / "link").symlink_to(checkout.place)
    (checkout.place.parent / "run").symlink_to(checkout.place.parent / "link" / "run.sh")
    for script in (checkout.place / "run.sh", checkout.place.parent / "link" / "run.sh", checkout.place.parent / "run"):
        done = checkout.run(script=script)
        assert word(done) == "first" and done.stderr == ""
    assert checkout.stamps() == made

    (checkout.place / "paychan" / "_fast" / "a.pyx").write_text("# changed\n")
    assert word(checkout.run()) == "first"
    built = checkout.stamps()
    assert built[".built"] > made[".built"] and built[".installed-run"] == made[".installed-run"]
    with_node = checkout.path_without_node()
    for name in ("node", "npm"):
        (checkout.bin / name).symlink_to("/bin/true")
    assert word(checkout.run(path=with_node, NEEDS="node")) == "first"
    assert set(checkout.stamps()) == set(made)
    (checkout.bin / "npm").unlink()
    assert word(checkout.run(path=with_node, NEEDS="node")) == "first"
    assert checkout.stamps()[".built"] == built[".built"]
    assert list((checkout.place / ".venv").glob("lib/python3*/site-packages/iniconfig"))

    checkout.take_away_writing()
    user = OTHER_USER if os.geteuid() == 0 else None
    assert word(checkout.run(user=user)) == "first"
    (checkout.place / "requirements.txt").chmod(0o644)
    (checkout.place / "requirements.txt").write_text(right + "\n")
    assert "not yours to write" in complaint(checkout.run(user=user))


def test_copies_run_their_own_code_wherever_the_original_went(checkout):
    starts = [checkout.start() for _ in range(3)]  # at once: one of them makes it
    told = [start.communicate(timeout=120) for start in starts]
    assert [out for out, _ in told] == ["first\n"] * 3
    assert "".join(err for _, err in told).count("making .venv") == 1
    shutil.copytree(checkout.place, checkout.place.parent / "copy", symlinks=True)
    old, checkout.place = checkout.place, checkout.place.parent / "copy"
    checkout.say("second")
    done = checkout.run()
    assert word(done) == "second" and "another place" in done.stderr
    shutil.rmtree(old)
    assert word(checkout.run()) == "second"


def test_a_python_that_was_replaced_and_a_half_made_venv_are_noticed(checkout):
    """Debian without python3-venv leaves a .venv that has no pip."""
    (checkout.place / ".venv" / "bin").mkdir(parents=True)
    (checkout.place / ".venv" / "bin" / "python").symlink_to(PYTHON)
    checkout.fake_python("python3", "3.14.1")
    checkout.fake_python("python3.13", "3.14.1")
    (checkout.bin / "python3.12").symlink_to(PYTHON)  # an older one beside it
    assert word(checkout.run(PYTHON="")) == "first"
    (checkout.place / ".venv" / ".installed-run").unlink()  # interrupted while it installed
    assert word(checkout.run(PYTHON="")) == "first"
    python = checkout.place / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3")
    done = checkout.run()
    assert word(done) == "first" and "another Python" in done.stderr
    made = checkout.place / ".venv" / ".made"
    made.write_text(re.sub(r" 3\.\d+\.\d+", " 3.10.99", made.read_text()))  # what is there says by now that it is another one
    done = checkout.run()
    assert word(done) == "first" and "another Python" in done.stderr


def test_what_is_missing_is_one_line(checkout):
    assert "needs gcc" in complaint(checkout.run(CC="no-such-compiler"))
    assert "needs Python 3.11, 3.12 or 3.13" in complaint(checkout.run(PYTHON="/no/such/python"))
    for name in ("python3", "python3.13", "python3.12", "python3.11"):
        checkout.fake_python(name, "3.14.1")
    assert complaint(checkout.run(PYTHON="")).startswith("paychan: needs Python 3.11, 3.12 or 3.13; python3 is 3.14.1 (")
    checkout.fake_python("python3", "3.12.1", "case $2 in *ensurepip*) exit 1 ;; esac")
    assert "needs Python's venv (Debian: python3-venv)" in complaint(checkout.run(PYTHON=""))
    assert not (checkout.place / ".venv").exists()


# --- the lock ---

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = {name: (ROOT / name).read_text() for name in ("requirements.txt", "requirements-dev.txt")}


def pins(lock: str) -> list[Requirement]:
    return [Requirement(line.rstrip(" \\")) for line in LOCKS[lock].splitlines() if line and not line.startswith((" ", "#"))]


def asked_for(extra: str) -> list[Requirement]:
    """Return what an extra's list asks for; `paychan[other]` in it stands for the other's."""
    found = [Requirement(text) for text in PROJECT["project"]["optional-dependencies"].get(extra, ())]
    return [
        wanted
        for requirement in found
        for wanted in ([w for e in requirement.extras for w in asked_for(e)] if requirement.name == "paychan" else [requirement])
    ]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_everything_with_hashes_and_names_no_host(lock):
    assert "://" not in LOCKS[lock]
    entries = re.split(r"\n(?=\S)", LOCKS[lock].partition("\n")[2])
    assert len(entries) == len(pins(lock)) > 5
    for entry in entries:
        assert re.match(r"[a-z0-9.-]+==[^ ]+ ", entry) and "--hash=sha256:" in entry, entry


def test_the_locks_are_within_pyprojects_ranges():
    runs = [
        *map(Requirement, PROJECT["project"]["dependencies"]),
        *map(Requirement, PROJECT["build-system"]["requires"]),
        *asked_for("gateway"),
        *asked_for("receipts"),
    ]
    for lock, wanted in (("requirements.txt", runs), ("requirements-dev.txt", [*runs, *asked_for("dev")])):
        versions = {}
        for pin in pins(lock):
            versions.setdefault(canonicalize_name(pin.name), []).append(str(pin.specifier).removeprefix("=="))
        for requirement in wanted:
            for version in versions[canonicalize_name(requirement.name)]:
                assert requirement.specifier.contains(version), (lock, str(requirement), version)
    locks = ("requirements.txt", "requirements-dev.txt")
    ours, developers = ({(pin.name, str(pin.specifier)) for pin in pins(lock)} for lock in locks)
    assert ours - developers == set()  # where the second asks for one on more Pythons, its marker differs


def test_what_runs_here_is_what_the_lock_lists():
    """A suite that passes with other versions says nothing about what is installed."""
    from importlib.metadata import version

    for pin in pins("requirements-dev.txt"):
        if pin.marker is None or pin.marker.evaluate():
            assert version(pin.name) == str(pin.specifier).removeprefix("=="), pin
