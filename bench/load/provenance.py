"""Where a result comes from: the commit that was measured, and which way granian's requests came in."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent

FORMAT = 1
"""Of a result's JSON. Another number where what `compare` reads has changed its meaning."""

UNKNOWN = "unknown"
NOT_TOLD = "not told"


def commit(root: Path = ROOT) -> str:
    """Return the commit of the checkout at `root`, 12 digits and "+dirty" if a tracked file differs from it.

    "unknown" where `root` is no checkout of its own, or there is no git. Another user's checkout is read, too.
    """
    git = ["git", "--no-optional-locks", f"--git-dir={root}/.git", f"--work-tree={root}"]
    describe = ["describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+dirty"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        told = subprocess.run([*git, *describe], cwd=root, env=env, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return UNKNOWN
    return told.stdout.strip() if told.returncode == 0 else UNKNOWN


def granian_door(readyz: Mapping[str, Any]) -> str:
    """Return what /readyz says of granian's door: "own", or "public: " and why; "not told" by a server that does not say."""
    told = readyz.get("granian_door")
    return told if isinstance(told, str) and told else NOT_TOLD
