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
    *("status", "libcrypto", "secp256k1", "payment", "sighash", "request", "http", "channel"),
    *("commit", "reply", "intake", "rsgi", "frame", "forward", "direct", "batch", "account", "group", "meter"),
)
# The load client is for the checkout: no wheel has it, nor the checked build, which is to judge what is shipped.
BENCH_MODULES = () if CHECKED or "bdist_wheel" in sys.argv else ("answers", "outbox", "client", "signing")

setup(
    ext_modules=cythonize(
        [
            Extension(
                name,
                [name.replace(".", "/") + ".pyx"],
                extra_compile_args=["-O1", "-g"] if CHECKED else ["-O3"],
            )
            for name in [f"paychan._fast.{name}" for name in MODULES] + [f"bench.load.{name}" for name in BENCH_MODULES]
        ],
        build_dir="build/cython-checked" if CHECKED else "build/cython",
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
    ),
)
