"""Build what the fuzzer needs under build/fuzz: its engine, and copies of the parsers that count edges and trap on slips.

With PAYCHAN_DEBUG=1 a parser is the checked one, as in setup.py: what it finds it cannot raise but answers COMPLETE, wrongly.
"""

import importlib.util
import os
import sys
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from types import ModuleType

from Cython.Build import cythonize
from setuptools import Distribution, Extension

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "paychan" / "_fast"
BUILD = ROOT / "build" / "fuzz"
COVERAGE = ["-O1", "-g0", "-fsanitize-coverage=trace-pc"]
TRAPS = ["-fsanitize=signed-integer-overflow,shift,bounds,pointer-overflow", "-fsanitize-undefined-trap-on-error"]
CHECKED = os.environ.get("PAYCHAN_DEBUG") == "1"
CHECKS = ("boundscheck", "wraparound", "initializedcheck", "overflowcheck")


def directives(checked: bool) -> dict[str, bool | str]:
    return {**dict.fromkeys(CHECKS, checked), "cdivision": not checked, "language_level": "3"}


def compile_extension(directory: Path, extension: Extension, checked: bool = False) -> Path:
    """Return the built file; unchanged sources are not compiled again."""
    modules = cythonize(
        [extension], build_dir=str(directory), include_path=[str(ROOT)], compiler_directives=directives(checked), quiet=True
    )
    distribution = Distribution({"name": "fuzz", "ext_modules": modules, "script_args": ["-q", "build_ext"]})
    command = distribution.get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(directory), str(directory / "objects")
    command.ensure_finalized()
    command.run()
    return Path(command.get_ext_fullpath(extension.name)).resolve()


def load(name: str, file: Path, register: bool = False) -> ModuleType:
    """Load an extension from where it is, beside any other of the same name; sys.modules learns of it only to `register`."""
    spec = importlib.util.spec_from_file_location(name, file, loader=ExtensionFileLoader(name, str(file)))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if register:
        sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def load_engine(name: str) -> ModuleType:
    """Return a module of compiled targets (`http_target`, `targets`), built if it must be, with the engine below it."""
    for part in ("engine", name):
        full = f"tests.fuzz.{part}"
        if full not in sys.modules:
            load(full, build_engine(part), register=True)
    return sys.modules[f"tests.fuzz.{name}"]


def build_engine(name: str) -> Path:
    full = f"tests.fuzz.{name}"
    return compile_extension(BUILD / "engine", Extension(full, [f"tests/fuzz/{name}.pyx"], extra_compile_args=["-O3"]))


def build_parser(source: Path, module: str, address_sanitizer: bool = False) -> Path:
    """Build a copy of paychan._fast.`module`; `source` is a directory like paychan/_fast, which may be broken on purpose."""
    sanitizers = TRAPS + (["-g", "-fsanitize=address"] if address_sanitizer else [])
    kind = ("address" if address_sanitizer else "plain") + ("-checked" if CHECKED else "")
    directory = (BUILD if source == SOURCE else source / "build") / kind
    return compile_extension(
        directory,
        Extension(
            f"paychan._fast.{module}",
            [str(source / f"{module}.pyx"), "tests/fuzz/coverage.c"],
            extra_compile_args=COVERAGE + sanitizers,
            extra_link_args=sanitizers,
        ),
        CHECKED,
    )
