"""A copy of the project to break: one textual change, rebuilt if it is in a compiled module, and tests run on it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEFT_OUT = {".git", ".venv", ".hypothesis", "__pycache__", "state", "bcoin", "checked", "cython-checked", "fuzz", "node_modules"}
PACKAGES = "clients/js/node_modules"
"""What npm has installed is not broken, and may be large: a copy uses the same."""
SECONDS_MAX = 900
"""For the tests of one break. A broken build may wait for what never comes; the tests give that up by themselves."""


class CannotApply(Exception):
    """The text to replace is not there exactly once: the break must follow the code."""


class CannotRun(Exception):
    """The broken copy does not build, or a named test did not run: that says nothing about the break."""


@dataclass
class Verdict:
    """What became of one named test: how often it ran (parameters count), and what its failures were."""

    passed: int = 0
    failed: int = 0
    other: list[str] = field(default_factory=list)

    @property
    def is_caught(self) -> bool:
        """Whether the test failed its claim, and nothing else went wrong."""
        return self.failed > 0 and not self.other

    @property
    def is_sound(self) -> bool:
        return self.passed > 0 and not self.failed and not self.other


def replaced(text: str, right: str, wrong: str, where: str) -> str:
    """Return `text` with its one `right` replaced. Raises CannotApply."""
    count = text.count(right)
    if count != 1 or right == wrong:
        raise CannotApply(f"{where}: {right.strip().splitlines()[0]!r} is there {count} times")
    return text.replace(right, wrong)


def _left_out(to_build: bool) -> Callable[[str, list[str]], set[str]]:
    """Return what shutil.copytree asks: which names in a directory it leaves out. A checkout in use also holds what no copy can
    have (sockets of a state directory, wherever that is) and what we may not read."""
    names_left_out = LEFT_OUT if to_build else LEFT_OUT | {"build"}

    def is_odd(path: Path) -> bool:
        return not path.is_symlink() and not ((path.is_dir() or path.is_file()) and os.access(path, os.R_OK))

    return lambda place, names: names_left_out.intersection(names) | {name for name in names if is_odd(Path(place, name))}


@contextmanager
def copied_tree(to_build: bool = True, root: Path = ROOT) -> Iterator[Path]:
    """Yield a copy of the project in a temporary directory, ready to be built again where that is asked for."""
    with tempfile.TemporaryDirectory(prefix="broken-") as directory:
        place = Path(directory) / "paychan"
        shutil.copytree(root, place, symlinks=True, ignore=_left_out(to_build))
        if (root / PACKAGES).exists():
            (place / PACKAGES).symlink_to(root / PACKAGES)
        if (root / "build" / "bcoin").exists():
            (place / "build").mkdir(exist_ok=True)
            (place / "build" / "bcoin").symlink_to(root / "build" / "bcoin")
        yield place


def break_file(place: Path, file: str, right: str, wrong: str) -> None:
    """Make the change in a copy, and rebuild what is compiled from it. Raises CannotApply, CannotRun."""
    path = place / file
    path.write_text(replaced(path.read_text(), right, wrong, file))
    if path.suffix in (".pyx", ".pxd"):
        rebuild(place)


def rebuild(place: Path) -> None:
    """Compile what has changed in a copy. Raises CannotRun."""
    done = _run(place, [sys.executable, "setup.py", "-q", "build_ext", "--inplace"], {})
    if done.returncode:
        raise CannotRun(f"the copy does not build:\n{done.stdout[-2000:]}")


def run_files(place: Path, files: Sequence[str], seconds: float = SECONDS_MAX) -> int:
    """Run whole test files in a copy until a test fails; return pytest's exit status. Raises CannotRun after `seconds`."""
    return _run(place, [sys.executable, "-m", "pytest", "-q", "-x", *files], {}, seconds).returncode


def run_tests(place: Path, tests: Sequence[str], fails_by: str = "assertion") -> dict[str, Verdict]:
    """Run tests (node ids without parameters) in a copy; return a verdict for each. Raises CannotRun.

    fails_by: the kind of exception (verdicts.py) by which a test fails its claim."""
    found = place / "verdicts.json"
    found.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.defects.verdicts", *tests]
    done = _run(place, command, {"PAYCHAN_VERDICTS": str(found)})
    verdicts = {test: Verdict() for test in tests}
    for line in found.read_text().splitlines() if found.exists() else ():
        entry = json.loads(line)
        verdict = verdicts.get(entry["test"].partition("[")[0])
        if verdict is None:
            raise CannotRun(f"{entry['test']}: {entry['kinds']}\n{done.stdout[-2000:]}")
        if entry["outcome"] == "passed":
            verdict.passed += 1
        elif entry["phase"] == "call" and entry["kinds"] == [fails_by]:
            verdict.failed += 1
        else:
            verdict.other.append(f"{entry['outcome']} in {entry['phase']}: {', '.join(entry['kinds'])}")
    silent = [test for test, verdict in verdicts.items() if verdict == Verdict()]
    if silent:
        raise CannotRun(f"{silent[0]} did not run:\n{done.stdout[-2000:]}")
    return verdicts


def _run(place: Path, command: list[str], env: dict[str, str], seconds: float = SECONDS_MAX) -> "subprocess.CompletedProcess[str]":
    """Run a command in a copy, which comes first on every path, with all its children ended after so many seconds."""
    full = {**os.environ, "PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1", **env}
    process = subprocess.Popen(
        command, cwd=place, env=full, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise CannotRun(f"took more than {seconds} s:\n{output[-2000:]}") from None
    return subprocess.CompletedProcess(command, process.returncode, output)
