"""Aim: payments come through our scheduler in the granian that is installed, and another granian is served by its public interface:
never a broken server, and never without a word. Method: real systems with granian as it is, and with copies of it in front of the
path, in which a name, a behaviour or the place of the scheduler was changed as its authors might; what /readyz and the log say is
held against how payments came."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import granian
import pytest
from granian import _futures

from paychan.server.doors.granian_door import COST, KNOWN_SOURCES, fingerprint
from tests.system import System, running, wait_until
from tests.variants import PUBLIC_WAY

INSTALLED = Path(granian.__file__).parent
FUTURES = (INSTALLED / "_futures.py").read_text()
PAYMENTS = 100
"""Many times more than granian serves at once with "few at once": a request that it takes for unfinished would hold a place."""


def unchanged(package: Path) -> None:
    pass


def comments(package: Path) -> None:
    """What is only said otherwise is the same."""
    text = FUTURES.replace("def _new_cbscheduler(", "# How it is made.\n\ndef _new_cbscheduler(\n    ")
    replace(package / "_futures.py", text)


def name(package: Path) -> None:
    replace(package / "_futures.py", FUTURES.replace("_cbsched_aioschedule", "_cbsched_schedule_aio"))


def behaviour(package: Path) -> None:
    """A coroutine is made of three things: who calls it with the watcher alone has no server."""
    text = FUTURES.replace("async def future_watcher(watcher):", "async def future_watcher(scope, proto, watcher):")
    text = text.replace("inner(watcher.scope, watcher.proto)", "inner(scope, proto)")
    replace(package / "_futures.py", text.replace("cb(watcher)", "cb(watcher.scope, watcher.proto, watcher)"))


def place(package: Path) -> None:
    """The scheduler is made by another module; the one that we know is still there."""
    replace(package / "_schedulers.py", FUTURES)
    for server in ("mp.py", "mt.py"):
        text = (INSTALLED / "server" / server).read_text()
        replace(package / "server" / server, text.replace("from .._futures import", "from .._schedulers import"))


def no_source(package: Path) -> None:
    """As in an image without sources."""
    import py_compile

    py_compile.compile(str(INSTALLED / "_futures.py"), str(package / "_futures.pyc"), doraise=True)
    (package / "_futures.py").unlink()
    shutil.rmtree(package / "__pycache__", ignore_errors=True)


def replace(path: Path, text: str) -> None:
    assert not path.exists() or path.read_text() != text, "nothing was changed"
    path.unlink(missing_ok=True)
    path.write_text(text)


def copied(directory: Path, change: Callable[[Path], None]) -> dict[str, str]:
    """Copy granian into `directory`, changed; return the environment in which it is the one that is found."""
    shutil.copytree(INSTALLED, directory / "granian", copy_function=os.symlink, ignore=shutil.ignore_patterns("__pycache__"))
    change(directory / "granian")
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(directory), os.environ.get("PYTHONPATH", "")]))}


def warnings(system: System) -> list[str]:
    return [line for line in system.output if " WARNING " in line and "granian" in line]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (unchanged, ""),
        (comments, ""),
        (name, "is not what was tested"),
        (behaviour, "is not what was tested"),
        (place, "granian has not made its scheduler in the way that is known"),
        (no_source, "cannot be read"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_granian_that_we_know_takes_our_way_and_another_its_own(tmp_path, change, reason):
    env = copied(tmp_path / "path", change)
    with running(tmp_path, variant="few at once", env=env) as system:
        door = system.client().request("GET", "/readyz").json["granian_door"]
        payer = system.payer("granian door")
        assert payer.open().status == 201
        for _ in range(PAYMENTS):
            assert payer.pay(3).json["value_received"] == 3
        assert payer.close().json["channel_value_left"] == payer.sender.change_value
        wait_until(lambda: len(warnings(system)) == bool(reason), 5, "the warning")
    log = "".join(system.output)
    assert door.startswith("public: ") and reason in door if reason else door == "own"
    assert (PUBLIC_WAY in log) == bool(reason)
    assert all(COST in line and reason in line for line in warnings(system))
    assert "Traceback" not in log and "internal error" not in log


def test_an_access_log_is_told(tmp_path):
    with running(tmp_path, variant="access log") as system:
        door = system.client().request("GET", "/readyz").json["granian_door"]
    assert door.startswith("public: ") and "access log" in door
    (line,) = warnings(system)
    assert COST in line and "access log" in line


def test_the_installed_granian_is_one_that_was_tested():
    """The newest of the range that pyproject.toml gives is what is installed for the tests: see CONTRIBUTING.md."""
    assert fingerprint(_futures) in KNOWN_SOURCES
