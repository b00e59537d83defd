#!/bin/sh
# The compiled path's tests on the checked build (bounds and overflow checks on). Usage: sh tests/run_checked.sh PYTHON [build | test];
# without either, both.
#
# The checked copy must come before the checkout, where the release extensions are: PYTHONSAFEPATH keeps the current directory
# off the front of the path, PYTHONPATH and pytest's own pythonpath put the copy first, importlib mode inserts nothing more.
# tests/unit/fast/test_fast_build.py fails if that did not work. The fuzzer is not run again: it compiles what it runs by itself.
# Nor are workers of two machines (below TLS they run what tests/unit/rpc and test_peers.py do), nor backups, which no compiled code
# makes.
set -eu
PYTHON=$1 PART=${2:-both}
cd "$(dirname "$0")/.."
export PAYCHAN_DEBUG=1
set -- "$PYTHON" setup.py -q build --build-base build/checked --build-lib build/checked/lib
[ "$PART" = test ] || rm -rf build/checked
[ "$PART" != build ] || exec "$@"
[ "$PART" = test ] || "$@"
export PYTHONSAFEPATH=1 PYTHONPATH="$PWD/build/checked/lib:$PWD"
exec "$PYTHON" -u -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 --import-mode=importlib \
    -o "pythonpath=build/checked/lib ." \
    --ignore tests/unit/server/doors/test_peer_port.py --ignore tests/unit/store/test_store_backup.py \
    tests/unit/fast tests/unit/store tests/unit/rpc tests/unit/server/shards tests/unit/server/doors tests/unit/core/test_sharding.py \
    tests/unit/test_limits.py tests/property tests/differential
