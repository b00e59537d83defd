# Sourced by runEverything.sh and runTests.sh: makes or refreshes $ROOT/.venv, and leaves its Python in $VENV_PYTHON.
# Usage: ROOT=...; EXTRAS="" or "[dev]"; . "$ROOT/setupVenv.sh"

VENV_PYTHON="$ROOT/.venv/bin/python"

_say() { echo "paychan: $*" >&2; }

_fingerprint() {
    (cd "$ROOT" && cat setup.py pyproject.toml paychan/_fast/*.pyx paychan/_fast/*.pxd bench/load/*.pyx && echo "$EXTRAS") | sha256sum | cut -d' ' -f1
}

_make_venv() {
    python=${PYTHON:-python3}
    command -v "$python" >/dev/null || { _say "needs python3 3.11 or newer"; exit 1; }
    command -v "${CC:-gcc}" >/dev/null || { _say "needs gcc (Debian: gcc, libc6-dev)"; exit 1; }
    "$python" -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
        { _say "needs Python's C headers (Debian: python3-dev)"; exit 1; }
    [ -x "$VENV_PYTHON" ] || { _say "making .venv"; "$python" -m venv "$ROOT/.venv"; }
    _say "building and installing (once; about a minute)"
    (cd "$ROOT" && "$VENV_PYTHON" -m pip install --quiet --disable-pip-version-check -e ".$EXTRAS" >&2)
    _fingerprint > "$ROOT/.venv/.built$EXTRAS"
}

mkdir -p "$ROOT/.venv"
(
    flock 9
    [ "$(cat "$ROOT/.venv/.built$EXTRAS" 2>/dev/null)" = "$(_fingerprint)" ] || _make_venv
) 9>"$ROOT/.venv/.lock"
