#!/bin/sh
# The compiled path's tests on the checked build (bounds and overflow checks on). Usage: sh tests/run_checked.sh PYTHON
#
# The checked copy must come before the checkout, where the release extensions are: PYTHONSAFEPATH keeps the current directory
# off the front of the path, PYTHONPATH and pytest's own pythonpath put the copy first, importlib mode inserts nothing more.
# tests/unit/fast/test_fast_build.py fails if that did not work.
set -eu
PYTHON=$1
cd "$(dirname "$0")/.."
rm -rf build/checked
PAYCHAN_DEBUG=1 "$PYTHON" setup.py -q build --build-base build/checked --build-lib build/checked/lib
export PAYCHAN_DEBUG=1 PYTHONSAFEPATH=1 PYTHONPATH="$PWD/build/checked/lib:$PWD"
exec "$PYTHON" -u -m pytest --numprocesses 2 --dist loadfile --max-worker-restart 0 --import-mode=importlib -o "pythonpath=build/checked/lib ." \
    tests/unit/fast tests/unit/store tests/unit/rpc tests/unit/server/shards tests/unit/server/doors tests/unit/core/test_sharding.py \
    tests/unit/test_limits.py tests/property tests/differential tests/fuzz
