"""The TypeScript package for tests: installed as its lock says, built once a run, its own tests run by Node.js.

Where npm cannot reach its registry, and the packages are not installed yet, there is nothing to test with: `Unreachable` says so.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.node.bcoin_node import find_node, npm_ci
from tests.system import ROOT

PACKAGE = ROOT / "clients" / "js"
BUILD_SECONDS_MAX = 300
TEST_SECONDS_MAX = 600
_NO_NETWORK = re.compile(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ERR_SOCKET|network")


class Unreachable(Exception):
    """npm cannot fetch what the lock names."""


def build() -> None:
    """Install what the lock names into node_modules, running no script of any package, and compile. Raises Unreachable.

    What is built already is left alone: another process may be running it.
    """
    with open(PACKAGE / ".build-lock", "w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        _install()
        sources, stamp = _sources_hash(), PACKAGE / "dist" / "built-from"
        if stamp.exists() and stamp.read_text() == sources:
            return
        shutil.rmtree(PACKAGE / "dist", ignore_errors=True)
        node, _ = find_node()
        compiler = str(PACKAGE / "node_modules" / "typescript" / "bin" / "tsc")
        for script in ([compiler, "-p", "."], [compiler, "-p", "demo"], ["demo/build.js"]):
            done = subprocess.run([*node, *script], cwd=PACKAGE, capture_output=True, text=True, timeout=BUILD_SECONDS_MAX)
            assert done.returncode == 0, done.stdout + done.stderr
        stamp.write_text(sources)


def _sources_hash() -> str:
    """Return what tells whether anything that is compiled has changed."""
    files = [path for name in ("src", "demo") for path in sorted((PACKAGE / name).rglob("*")) if path.is_file()]
    digest = hashlib.sha256()
    for path in [*files, PACKAGE / "tsconfig.json", PACKAGE / "package-lock.json"]:
        digest.update(str(path.relative_to(PACKAGE)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _install() -> None:
    lock = (PACKAGE / "package-lock.json").read_bytes()
    installed = PACKAGE / "node_modules" / ".installed-lock.json"
    if installed.exists() and installed.read_bytes() == lock:
        return
    done = npm_ci(PACKAGE)
    if done.returncode and _NO_NETWORK.search(done.stderr):
        raise Unreachable("npm cannot reach its registry, and the packages of clients/js are not installed")
    assert done.returncode == 0, done.stderr
    installed.write_bytes(lock)


def run_tests(pattern: str, **env: str) -> str:
    """Run the package's tests whose files match; return what Node.js reports. Fails with that report."""
    node, _ = find_node()
    files = sorted(str(path) for path in PACKAGE.glob(f"test/{pattern}"))
    assert files, pattern
    command = [*node, "--no-warnings", "--test", "--test-reporter=spec", *files]
    done = subprocess.run(
        command, cwd=PACKAGE, capture_output=True, text=True, timeout=TEST_SECONDS_MAX, env={**os.environ, **env}
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    match = re.search(r"pass (\d+)", done.stdout)
    assert match and int(match[1]) > 0, done.stdout
    assert re.search(r"skipped 0\b", done.stdout), done.stdout
    return done.stdout


def path_of(*parts: str) -> Path:
    """Return a path in the package."""
    return PACKAGE.joinpath(*parts)
