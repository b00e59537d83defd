# Sourced by runEverything.sh, runTests.sh and demo.sh: makes or refreshes $ROOT/.venv, and leaves its Python in $VENV_PYTHON.
# Usage: ROOT=...; NEEDS=run, dev, or node (run, and Node.js: dev has one if the machine has none); . "$ROOT/setupVenv.sh"
#
# What is installed is what requirements.txt (dev: requirements-dev.txt) lists, hashes and all. Three stamps in .venv say what it was made
# for, and make it anew when that is no longer so: .made (this place, this Python), .installed (the lock), .built (the compiled sources).
# Whoever may not write here may still run what is complete.

VENV="$ROOT/.venv"
VENV_PYTHON="$VENV/bin/python"
PYTHONS="python3 python3.13 python3.12 python3.11"
SUPPORTED="3.11, 3.12 or 3.13"  # as in pyproject.toml

if [ "$NEEDS" = node ]; then
    NEEDS=run
    command -v node >/dev/null && command -v npm >/dev/null || NEEDS=dev
fi

_say() { echo "paychan: $*" >&2; }

_stop() {
    _say "$*"
    exit 1
}

_version() { "$1" -c 'import sys; print(" ".join(sys.version.split()))' 2>/dev/null || true; }  # PYTHON; nothing, if it does not run

_is_supported() { case "$(_version "$1")" in 3.11.* | 3.12.* | 3.13.*) true ;; *) false ;; esac; }  # PYTHON

_choose_python() {
    found=""
    for python in ${PYTHON:-$PYTHONS}; do
        command -v "$python" >/dev/null || continue
        ! _is_supported "$python" || return 0
        [ -n "$found" ] || found="; $python is $(_version "$python" | cut -d' ' -f1)"
    done
    _stop "needs Python $SUPPORTED$found (coincurve has no wheel for a later one); PYTHON=/path/to/python names another"
}

_lock_file() { [ "$NEEDS" = dev ] && echo requirements-dev.txt || echo requirements.txt; }

_place() { echo "$ROOT $(_version "$VENV_PYTHON")"; }

_lock_sum() { (cd "$ROOT" && sha256sum < "$(_lock_file)"); }

_sources_sum() {
    (cd "$ROOT" && cat setup.py pyproject.toml requirements.txt paychan/_fast/*.p[yx][xd] bench/load/*.p[yx][xd] | sha256sum)
}

_stamp_is() { [ "$(cat "$VENV/$1" 2>/dev/null)" = "$2" ]; }

_is_made() {
    _stamp_is .made "$(_place)" && { [ -z "${PYTHON:-}" ] || [ "$(_version "$PYTHON")" = "$(_version "$VENV_PYTHON")" ]; }
}

_is_complete() { _is_made && _stamp_is ".installed-$NEEDS" "$(_lock_sum)" && _stamp_is .built "$(_sources_sum)"; }

_check_tools() {  # PYTHON
    command -v "${CC:-gcc}" >/dev/null || _stop "needs gcc (Debian: gcc, libc6-dev)"
    "$1" -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' >/dev/null ||
        _stop "needs Python's C headers (Debian: python3-dev)"
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1 || _stop "needs Python's venv (Debian: python3-venv)"
}

_make() {
    _choose_python
    _check_tools "$python"
    [ ! -e "$VENV/.made" ] || _say ".venv was made for another place or another Python"
    _say "making .venv with $(_version "$python" | cut -d' ' -f1)"
    "$python" -m venv --clear "$VENV" >&2 || { rm -rf "$VENV"; _stop "venv could not make .venv"; }
    _place > "$VENV/.made"
}

_pip() { (cd "$ROOT" && "$VENV_PYTHON" -m pip install --quiet --disable-pip-version-check "$@" >&2); }

_install() {
    _say "installing what $(_lock_file) lists"
    _pip --require-hashes -r "$(_lock_file)" || _stop "$(_lock_file) could not be installed; the lines above say why"
    _lock_sum > "$VENV/.installed-$NEEDS"
}

_build() {
    _say "building (once; about a minute)"
    _check_tools "$VENV_PYTHON"
    _pip --no-build-isolation --no-deps --no-index --editable . || _stop "the build failed; the lines above say why"
    _sources_sum > "$VENV/.built"
}

_complete() {
    [ -w "$ROOT" ] || _stop "$ROOT is not built for this place and Python, and not yours to write: have its owner start it once," \
        "or name a Python that has paychan[server] by PAYCHAN_PYTHON"
    _is_made || _make
    _stamp_is ".installed-$NEEDS" "$(_lock_sum)" || _install
    _stamp_is .built "$(_sources_sum)" || _build
}

_is_complete || (flock 9; _is_complete || _complete) 9<"$ROOT"
