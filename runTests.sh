#!/bin/sh
# ./runTests.sh: sets up .venv on first use, then runs the whole suite: the checks of the sources, all tests, four files of them at a
# time, the slowest first, and the compiled path's tests again on a build with bounds, overflow and None checks, which is made
# meanwhile. Each part runs, whatever became of the one before; the end tells of all.
# ./runTests.sh ARGUMENTS: only pytest, with these, as `./runTests.sh tests/unit/core` or `./runTests.sh -k fees`.
set -eu
ROOT=$(dirname "$(readlink -f "$0")")
NEEDS=dev
. "$ROOT/setupVenv.sh"
cd "$ROOT"
BIN="$VENV/bin"
told=$(mktemp) summary=$(mktemp) checked=$(mktemp) failed=0 builder=
trap 'rm -f "$told" "$summary" "$checked"; [ -z "$builder" ] || kill "$builder" 2>/dev/null || :' EXIT
trap 'exit 130' INT TERM
export PAYCHAN_TEST_REPORT="$told"

_part() {  # NAME COMMAND...
    name=$1
    shift
    echo "== $name"
    : > "$told"
    began=$(date +%s)
    status=0
    "$@" || status=$?
    result="ok, $(($(date +%s) - began)) s"
    [ "$status" -eq 0 ] || { result="FAILED (status $status)"; failed=1; }
    printf '%-16s%s\n' "$name" "$result" >> "$summary"
    [ ! -s "$told" ] || sed 's/^/                /' "$told" >> "$summary"
}

_checked() {
    wait "$builder" && status=0 || status=$?
    builder=
    cat "$checked"
    [ "$status" -eq 0 ] || return "$status"
    sh tests/run_checked.sh "$BIN/python" test
}

if [ $# -gt 0 ]; then
    _part tests "$BIN/python" -u -m pytest "$@"
else
    sh tests/run_checked.sh "$BIN/python" build >"$checked" 2>&1 &
    builder=$!
    _part ruff "$BIN/ruff" check .
    _part cython-lint env PATH="$BIN:$PATH" "$BIN/cython-lint" paychan/_fast bench/load tests/fuzz  # it calls pycodestyle by name
    _part mypy "$BIN/mypy"
    _part tests "$BIN/python" -u -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder --max-worker-restart 0
    _part "checked build" _checked
fi
echo "== what ran"
cat "$summary"
exit "$failed"
