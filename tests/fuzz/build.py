"""Build what the fuzzer needs under build/fuzz: its engine, and copies of the parser that count edges and trap on slips.

With PAYCHAN_DEBUG=1 the parser is the checked one, as in setup.py: what it finds it cannot raise but answers COMPLETE, wrongly.
"""

import importlib.util
import os
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from types import ModuleType

from Cython.Build import cythonize
from setuptools import Distribution, Extension

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "paychan" / "_fast"
BUILD = ROOT / "build" / "fuzz"
COVERAGE = ["-O2", "-g", "-fsanitize-coverage=trace-pc"]
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


def load(name: str, file: Path) -> ModuleType:
    """Load an extension from where it is, beside any other of the same name: sys.modules does not learn of it."""
    spec = importlib.util.spec_from_file_location(name, file, loader=ExtensionFileLoader(name, str(file)))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build_engine() -> Path:
    name = "tests.fuzz.engine"
    return compile_extension(BUILD / "engine", Extension(name, ["tests/fuzz/engine.pyx"], extra_compile_args=["-O3"]))


def build_parser(source: Path, address_sanitizer: bool) -> Path:
    """Build a copy of the parser; `source` is a directory like paychan/_fast, which may be one that was broken on purpose."""
    sanitizers = TRAPS + (["-fsanitize=address"] if address_sanitizer else [])
    kind = ("address" if address_sanitizer else "plain") + ("-checked" if CHECKED else "")
    directory = (BUILD if source == SOURCE else source / "build") / kind
    return compile_extension(
        directory,
        Extension(
            "paychan._fast.http",
            [str(source / "http.pyx"), "tests/fuzz/coverage.c"],
            extra_compile_args=COVERAGE + sanitizers,
            extra_link_args=sanitizers,
        ),
        CHECKED,
    )
