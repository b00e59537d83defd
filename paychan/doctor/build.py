"""Python, and our compiled modules: of this source, made to be fast, and granian one that we know."""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path

from .. import _fast
from .machine import Machine, need_server_parts
from .verdicts import Verdict, bad, ok, warning

PYTHON_MIN, PYTHON_MAX = (3, 11), (3, 13)
DEBUG_SECTION = b".debug_info"
"""Stands in what setup.py builds with PAYCHAN_DEBUG=1, and not in the rest, which is built with -g0."""

REBUILD = ".venv/bin/python setup.py build_ext --inplace"


@dataclass(frozen=True)
class Module:
    """is_stale: its source is newer than it."""

    name: str
    is_stale: bool
    is_checked: bool
    trouble: str = ""


def python(_: Machine) -> list[Verdict]:
    return [judge_python(sys.version_info[:2])]


def judge_python(version: tuple[int, ...]) -> Verdict:
    text = f"Python {'.'.join(map(str, version))}"
    if PYTHON_MIN <= version <= PYTHON_MAX:
        return ok("python", text)
    return warning(
        "python",
        f"{text}: not one that paychan is tested with",
        f"take {PYTHON_MIN[0]}.{PYTHON_MIN[1]} to {PYTHON_MAX[0]}.{PYTHON_MAX[1]}",
    )


def compiled(_: Machine) -> list[Verdict]:
    directory = Path(_fast.__file__ or "").parent
    return judge_modules([_look(directory, name) for name in sorted(path.stem for path in directory.glob("*.pyi"))])


def _look(directory: Path, name: str) -> Module:
    try:
        loaded = importlib.import_module(f"{_fast.__name__}.{name}")
    except ImportError as error:
        return Module(name, False, False, type(error).__name__)
    library = Path(loaded.__file__ or "")
    is_checkout = (directory.parents[1] / "setup.py").exists()  # elsewhere pip wrote both, in any order
    sources = [path for path in (directory / f"{name}.pyx", directory / f"{name}.pxd") if is_checkout and path.exists()]
    is_stale = any(path.stat().st_mtime > library.stat().st_mtime for path in sources)
    return Module(name, is_stale, DEBUG_SECTION in library.read_bytes())


def judge_modules(modules: list[Module]) -> list[Verdict]:
    missing = [module.name for module in modules if module.trouble]
    stale = [module.name for module in modules if module.is_stale]
    checked = [module.name for module in modules if module.is_checked]
    if missing or not modules:
        return [
            bad(
                "compiled",
                f"cannot be loaded: {', '.join(missing) or 'all of them'}",
                f"install the package anew; in a checkout: {REBUILD}",
            )
        ]
    found = []
    if stale:
        found.append(
            warning(
                "compiled",
                f"older than its source: {', '.join(stale)}",
                f"{REBUILD}; or touch them, if only the files' times changed",
            )
        )
    if checked:
        found.append(
            warning(
                "checked",
                f"the checked build, for tests, several times slower: {', '.join(checked)}",
                f"without PAYCHAN_DEBUG: {REBUILD} --force",
            )
        )
    return found or [ok("compiled", f"{len(modules)} modules, of this source")]


def door(_: Machine) -> list[Verdict]:
    """Say which way granian's requests will come in, by what the server itself asks."""
    need_server_parts()
    from ..server.doors.granian_door import COST, KNOWN_SOURCES, fingerprint

    try:
        from granian import __version__, _futures

        return [judge_door(__version__, fingerprint(_futures) in KNOWN_SOURCES, COST)]
    except (ImportError, OSError, TypeError, SyntaxError) as error:
        return [judge_door(type(error).__name__, False, COST)]


def judge_door(version: str, is_known: bool, cost: str) -> Verdict:
    if is_known:
        return ok("door", f"granian {version} is known: requests come through our own door")
    why = f"granian {version} is not one that was tested: requests come through its public interface, and {cost}"
    return warning("door", why, "install the granian of requirements.txt")
