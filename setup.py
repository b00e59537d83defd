"""The compiled extensions and their two sets of directives. Everything else is in pyproject.toml.

PAYCHAN_DEBUG=1 builds the checked set: bounds, overflow and None checks on, so that a slip raises instead of corrupting.
"""

import os
import sys

from Cython.Build import cythonize
from setuptools import Extension, setup

if sys.byteorder != "little":
    sys.exit("paychan needs a little-endian machine")

CHECKED = os.environ.get("PAYCHAN_DEBUG") == "1"
MODULES = (
    *("status", "libcrypto", "secp256k1", "payment", "sighash", "request", "scheme", "http", "purchase", "tally", "channel"),
    *("lane", "fields", "commit", "reply", "intake", "selling", "sale", "rsgi", "frame", "forward", "direct"),
    *("batch", "account", "group", "limits", "meter"),
)
# The load client is for the checkout: no wheel has it, nor the checked build, which is to judge what is shipped.
BENCH_MODULES = () if CHECKED or "bdist_wheel" in sys.argv else ("answers", "outbox", "client", "signing")
# Python's own flags ask for debug information, which costs a third of the time and is of C that nobody wrote.
FLAGS = ["-O1" if CHECKED else "-O3", "-g0"]
EXTENSIONS = [
    Extension(name, [name.replace(".", "/") + ".pyx"], extra_compile_args=FLAGS)
    for name in [f"paychan._fast.{name}" for name in MODULES] + [f"bench.load.{name}" for name in BENCH_MODULES]
]


def translated() -> list[Extension]:
    """Return the extensions with their C, which Cython makes where it is missing or old."""
    return cythonize(
        EXTENSIONS,
        build_dir="build/cython-checked" if CHECKED else "build/cython",
        nthreads=os.cpu_count() or 1,
        compiler_directives={
            "language_level": "3",
            "embedsignature": True,
            "boundscheck": CHECKED,
            "wraparound": CHECKED,
            "nonecheck": CHECKED,
            "initializedcheck": CHECKED,
            "overflowcheck": CHECKED,
            "cdivision": not CHECKED,
        },
    )


IS_BUILDING = {"egg_info", "dist_info", "sdist"}.isdisjoint(sys.argv)
"""To tell what the package consists of, or to pack its sources, no C is needed."""

setup(
    ext_modules=translated() if IS_BUILDING else EXTENSIONS,
    options={"build_ext": {"parallel": True}},  # a compiler for each core
)
