"""One mutant's trial: a forked process in which one module is another, and the tests that should notice.

The parent has imported pytest and the libraries, and nothing of the project. The child imports the mutant in the module's place, so
that constants and names that others imported are the mutant's too; processes that its tests start are not.
"""

import ast
import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import resource
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).parents[2]
LIBRARIES = ("pytest", "hypothesis", "_hypothesis_pytestplugin", "bitcoin.core", "coincurve", "orjson", "rocksdict", "uvloop")
MEMORY_MAX = 6 << 30
CPU_FACTOR, CPU_SECONDS_MIN = 5, 10
WALL_FACTOR = 20
"""Of the CPU seconds that it may take, on a loaded machine; who waits for what never comes is stopped then."""

SURVIVED = 0
"""pytest's exit status if all tests passed."""


class _Mutant(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):
    """Finds one module and gives it another code."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        super().__init__(name, str(path))
        self._tree = tree

    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, name: str) -> CodeType:
        return compile(self._tree, self.path, "exec")


def preload() -> None:
    """Import what is the same for all mutants. What of the project is imported already would not be the mutant's."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for name in LIBRARIES:
        importlib.import_module(name)
    early = [name for name in sys.modules if name.split(".")[0] in ("paychan", "store", "signer")]
    assert not early, early


@dataclass(frozen=True)
class Outcome:
    """status: pytest's, or below 0 the signal that ended it. cpu: seconds."""

    status: int
    cpu: float


def start(module: str, tree: ast.Module | None, tests: tuple[str, ...], cpu_seconds: float) -> int:
    """Fork a trial; return its pid. tree: the mutant, or None for the module as it is. module: its path below the root."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        status = _run(module, tree, tests, cpu_seconds)
    finally:
        os._exit(status)


def _run(module: str, tree: ast.Module | None, tests: tuple[str, ...], cpu_seconds: float) -> int:
    import pytest
    from hypothesis import HealthCheck, Phase, settings

    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_seconds) + 1, int(cpu_seconds) + 2))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
    phases = (Phase.explicit, Phase.generate)
    checks = list(HealthCheck)
    settings.register_profile(
        "mutation", derandomize=True, database=None, deadline=None, phases=phases, suppress_health_check=checks
    )
    settings.load_profile("mutation")
    if tree is not None:
        name = module.removesuffix(".py").replace("/", ".")
        sys.meta_path.insert(0, _Mutant(name, ROOT / module, tree))
    sys.dont_write_bytecode = True
    return int(pytest.main(["-x", "-q", "-p", "_hypothesis_pytestplugin", "-p", "no:cacheprovider", *tests]))


def finish(pid: int, began: float, cpu_seconds: float) -> Outcome | None:
    """Return how a trial ended, None while it runs. One that takes too long is killed, with all that it started."""
    done, wait_status, usage = os.wait4(pid, os.WNOHANG)
    if not done and time.monotonic() - began > WALL_FACTOR * cpu_seconds:
        _kill(pid)
        done, wait_status, usage = os.wait4(pid, 0)
    if not done:
        return None
    _kill(pid)
    return Outcome(os.waitstatus_to_exitcode(wait_status), usage.ru_utime + usage.ru_stime)


def _kill(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
