#!/bin/sh
# ./bench/run.sh [--long | --tiny] [--json FILE]: sets up .venv on first use, builds, measures, and writes bench/results/latest.md.
# PAYCHAN_PYTHON: a Python that has what paychan and its tests need, instead of .venv.
set -eu
ROOT=$(dirname "$(dirname "$(readlink -f "$0")")")
if [ -z "${PAYCHAN_PYTHON:-}" ]; then
    NEEDS=dev
    . "$ROOT/setupVenv.sh"
    PAYCHAN_PYTHON=$VENV_PYTHON
fi
# A relative file is relative to where we were called.
for argument; do
    shift
    case ${previous:-} in --json | --results) case $argument in /*) ;; *) argument=$PWD/$argument ;; esac ;; esac
    previous=$argument
    set -- "$@" "$argument"
done
cd "$ROOT"
"$PAYCHAN_PYTHON" setup.py -q build_ext --inplace >/dev/null
exec "$PAYCHAN_PYTHON" -m bench.load "$@"
