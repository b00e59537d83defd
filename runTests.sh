#!/bin/sh
# ./runTests.sh: sets up .venv on first use, then runs the whole suite: the checks of the sources, all tests, three files of them at a
# time, and the compiled path's tests again on a build with bounds, overflow and None checks. Each part runs, whatever became of the one before; the end tells of all.
# ./runTests.sh ARGUMENTS: only pytest, with these, as `./runTests.sh tests/unit/core` or `./runTests.sh -k fees`.
set -eu
ROOT=$(dirname "$(readlink -f "$0")")
NEEDS=dev
. "$ROOT/setupVenv.sh"
cd "$ROOT"
BIN="$VENV/bin"
told=$(mktemp) summary=$(mktemp) failed=0
trap 'rm -f "$told" "$summary"' EXIT

_part() {  # NAME COMMAND...
    name=$1
    shift
    echo "== $name"
    : > "$told"
    began=$(date +%s)
    status=0
    PAYCHAN_TEST_REPORT=$told "$@" || status=$?
    result="ok, $(($(date +%s) - began)) s"
    [ "$status" -eq 0 ] || { result="FAILED (status $status)"; failed=1; }
    printf '%-16s%s\n' "$name" "$result" >> "$summary"
    [ ! -s "$told" ] || sed 's/^/                /' "$told" >> "$summary"
}

if [ $# -gt 0 ]; then
    _part tests "$BIN/python" -u -m pytest "$@"
else
    _part ruff "$BIN/ruff" check .
    _part cython-lint env PATH="$BIN:$PATH" "$BIN/cython-lint" paychan/_fast bench/load tests/fuzz  # it calls pycodestyle by name
    _part mypy "$BIN/mypy"
    _part tests "$BIN/python" -u -m pytest --numprocesses 3 --dist loadfile --max-worker-restart 0
    _part "checked build" sh tests/run_checked.sh "$BIN/python"
fi
echo "== what ran"
cat "$summary"
exit "$failed"
