#!/bin/sh
# ./runTests.sh: sets up .venv on first use, then runs the whole suite; the compiled path's tests run on both builds.
set -eu
ROOT=$(cd "$(dirname "$0")" && pwd)
EXTRAS="[dev]"
. "$ROOT/setupVenv.sh"
cd "$ROOT"
BIN="$ROOT/.venv/bin"
"$BIN/ruff" check .
"$BIN/python" -m pytest -q "$@"
sh tests/run_checked.sh "$BIN/python"
