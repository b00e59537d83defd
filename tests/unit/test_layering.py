"""Aim: the direction of imports that ARCHITECTURE.md draws. Method: every import (ast) and cimport line in the shipped code."""

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMPURE = {"asyncio", "socket", "os", "time", "logging", "threading", "subprocess", "random", "secrets", "signal"}
CLOCKS = {"datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
CIMPORT = re.compile(r"^(?:from\s+(\S+)\s+c?import\b|c?import\s+(\S+))", re.M)


def module_name(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(file):
    name = module_name(file)
    return name if file.stem == "__init__" else name.rpartition(".")[0]


def absolute(file, level, name):
    if not level:
        return name
    base = package_of(file).split(".")
    return ".".join(base[: len(base) - level + 1] + ([name] if name else []))


def python_imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            target = absolute(file, node.level, node.module or "")
            yield target
            yield from (f"{target}.{alias.name}" for alias in node.names)


def cython_imports(file):
    for names in CIMPORT.findall(file.read_text()):
        name = names[0] or names[1]
        bare = name.lstrip(".")
        yield absolute(file, len(name) - len(bare), bare)


@cache
def imports(file):
    return frozenset(python_imports(file) if file.suffix in (".py", ".pyi") else cython_imports(file))


def shipped():
    for package in ("paychan", "store", "signer"):
        for suffix in ("py", "pyi", "pyx", "pxd"):
            yield from (ROOT / package).rglob(f"*.{suffix}")


SHIPPED = sorted(shipped())


def within(name, *packages):
    return any(name == package or name.startswith(package + ".") for package in packages)


def test_the_reader_of_imports_sees_all_kinds():
    """The checks below are worth as much as this reading."""
    life = ROOT / "paychan" / "server" / "channels" / "life.py"
    assert {"asyncio", "paychan._fast.channel", "paychan.core.errors", "paychan.rpc.store_messages"} <= imports(life)
    table = ROOT / "paychan" / "_fast" / "channel.pyx"
    assert {"os", "libc.stdlib", "paychan._fast.payment", "paychan._fast.status"} <= imports(table)
    assert len(SHIPPED) > 50


def test_nothing_shipped_imports_tests():
    unshipped = ("tests", "bench", "pytest", "hypothesis")
    assert not [(module_name(file), name) for file in SHIPPED for name in imports(file) if within(name, *unshipped)]


FLOORS = (
    "paychan._fast",
    "paychan.core",
    "paychan.mpp",
    "paychan.events",
    "paychan.clock",
    "paychan.exits",
    "paychan.durable",
    "paychan.printing",
    "paychan.logs",
    "paychan.hangup",
    "paychan.precedence",
    "paychan.notify",
    "paychan.rpc",
    "paychan.settings",
    "paychan.metrics",
    "paychan.parts",
    "paychan.database",
    "paychan.chain",
    "paychan.client",
    "paychan.pay",
    "paychan.receipts",
    "paychan.sell",
    "paychan.server.protocol",
    "paychan.server.process",
    "paychan.server.life",
    "paychan.server.limits",
    "paychan.server.background",
    "paychan.server.steered",
    "paychan.server.shards",
    "paychan.server.settlement",
    "paychan.server.channels",
    "paychan.server.doors",
    "paychan.server.gauges",
    "paychan.server.worker",
    "paychan.server.app",
    "paychan.server",
    "paychan.webhooks",
    "paychan.gateway",
    "store",
    "signer",
    "paychan.operator",
    "paychan.ready",
    "paychan.supervisor",
    "paychan.instances",
    "paychan.doctor",
    "paychan.cli",
    "paychan",
)
"""The rooms from the ground up: each may import what stands before it. docs/ARCHITECTURE.md draws it. What of a package has no room
of its own (its `__init__`, its `__main__`) stands in the package's, which is above them."""

APART = (
    ("paychan", "store"),
    ("paychan", "signer"),
    ("store", "signer"),
    ("store", "paychan.server"),
    ("signer", "store"),
    ("signer", "paychan.server"),
)
"""Processes that know each other by their frames alone. The first column imports nothing of the second, whatever the floors say."""


def room(name):
    return max((floor for floor in FLOORS if within(name, floor)), key=len)


def ours(file):
    version = ("paychan", "paychan.__version__")  # of the package itself, which imports nothing
    return [name for name in imports(file) if within(name, "paychan", "store", "signer") and name not in version]


def allowed_to(file):
    """The stubs of compiled modules may name types of the core, and replies: they are read by checkers, never imported."""
    here = room(module_name(file))
    return {*FLOORS[: FLOORS.index(here) + 1], *(("paychan.core", "paychan.server.protocol") if file.suffix == ".pyi" else ())}


def test_nothing_runs_up():
    assert not [(module_name(file), name) for file in SHIPPED for name in ours(file) if room(name) not in allowed_to(file)]


def forbidden_to(file):
    return [others for own, others in APART if within(module_name(file), own)]


def test_processes_are_apart():
    assert not [(module_name(file), name) for file in SHIPPED for name in ours(file) if within(name, *forbidden_to(file))]


def test_no_modules_import_each_other_in_a_circle():
    modules = {module_name(file) for file in SHIPPED}
    graph = {}
    for file in SHIPPED:
        if file.suffix != ".pyi":
            name = module_name(file)
            graph.setdefault(name, set()).update({target for target in ours(file) if target in modules} - {name})
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


CORE = [file for file in SHIPPED if file.parent.name in ("core", "mpp")]


@pytest.mark.parametrize("file", CORE, ids=module_name)
def test_core_is_pure(file):
    names = imports(file)
    assert not {name.split(".")[0] for name in names} & IMPURE
    assert not [clock for clock in CLOCKS if clock in file.read_text()]  # of datetime, what only converts is pure
    pure = ("paychan.core", "paychan._fast", "paychan.mpp")
    assert not [name for name in names if within(name, "paychan") and not within(name, *pure)]


KNOWN_TO_COMPILED = ("paychan", "libc", "posix", "cpython", "cython", "coincurve", "os", "ctypes", "_hashlib")
COMPILED = sorted(file for file in SHIPPED if file.parent.name == "_fast" and file.suffix in (".pyx", ".pxd"))


@pytest.mark.parametrize("file", COMPILED, ids=lambda file: file.name)
def test_compiled_modules_know_only_each_other(file):
    for name in imports(file):
        if within(name, "paychan"):
            assert within(name, "paychan._fast"), f"{file.name} imports {name}"
        assert name.split(".")[0] in KNOWN_TO_COMPILED, name


def test_pure_codecs_stay_pure():
    for name in ("store_messages", "signer_messages"):
        assert not {part.split(".")[0] for part in imports(ROOT / "paychan" / "rpc" / f"{name}.py")} & {*IMPURE, "datetime"}


READS_ENVIRONMENT = (
    *("paychan.settings", "paychan.supervisor", "paychan.instances", "paychan.server.serving", "paychan.server.app"),
    *("paychan.cli", "paychan.notify", "paychan.gateway.app", "paychan.gateway.command"),
    *("paychan.operator.serving", "paychan.operator.command"),
)
"""Settings come as arguments; the environment is for the settings, commands and what starts processes."""


def test_environment_is_read_in_known_places_only():
    readers = [module_name(file) for file in SHIPPED if file.suffix == ".py" and "os.environ" in file.read_text()]
    assert readers and not [name for name in readers if not within(name, *READS_ENVIRONMENT)]
