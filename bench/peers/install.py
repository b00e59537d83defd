"""The peers, installed into a scratch folder through pip and npm: x402 with a fast signature library, and mppx.

What is installed is pinned in requirements.txt and mppx/package-lock.json; no script of npm's packages runs. Nothing else on the
machine changes.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from paychan.printing import say

HERE = Path(__file__).parent
REQUIREMENTS, MPPX = HERE / "requirements.txt", HERE / "mppx"


class Installed(NamedTuple):
    """python: the interpreter that has x402. mppx: the folder whose scripts find mppx, None: there is no npm here."""

    python: Path
    mppx: Path | None


def install(scratch: Path) -> Installed:
    """Return what is installed in a folder, which is made and filled if it is not what is pinned. Raises CalledProcessError."""
    return Installed(_install_x402(scratch / "x402"), _install_mppx(scratch / "mppx") if shutil.which("npm") else None)


def _is_done(place: Path, pinned: Path) -> bool:
    done = place / "installed"
    return done.exists() and done.read_bytes() == pinned.read_bytes()


def _install_x402(place: Path) -> Path:
    python = place / "bin" / "python"
    if not _is_done(place, REQUIREMENTS):
        say(f"installing x402 and what it needs into {place}")
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", "-r", str(REQUIREMENTS)], check=True)
        shutil.copy(REQUIREMENTS, place / "installed")
    return python


def _install_mppx(place: Path) -> Path:
    lock = MPPX / "package-lock.json"
    is_done = _is_done(place, lock)
    if not is_done:
        say(f"installing mppx and what it needs into {place}")
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    for file in MPPX.iterdir():  # Node.js looks for packages beside the script
        shutil.copy(file, place)
    if not is_done:
        subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=place, check=True)
        shutil.copy(lock, place / "installed")
    return place
