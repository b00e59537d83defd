#!/bin/sh
# The compiled path's tests on the checked build (bounds and overflow checks on). Usage: sh tests/run_checked.sh PYTHON
#
# The checked copy must come before the checkout, where the release extensions are: PYTHONSAFEPATH keeps the current directory
# off the front of the path, PYTHONPATH and pytest's own pythonpath put the copy first, importlib mode inserts nothing more.
# tests/unit/test_fast_build.py fails if that did not work.
set -eu
PYTHON=$1
cd "$(dirname "$0")/.."
rm -rf build/checked
PAYCHAN_DEBUG=1 "$PYTHON" setup.py -q build --build-base build/checked --build-lib build/checked/lib
export PAYCHAN_DEBUG=1 PYTHONSAFEPATH=1 PYTHONPATH="$PWD/build/checked/lib:$PWD"
exec "$PYTHON" -m pytest -q --import-mode=importlib -o "pythonpath=build/checked/lib ." \
    tests/unit/test_fast_*.py tests/unit/test_sharding.py tests/unit/test_status.py tests/unit/test_stubs.py \
    tests/unit/test_committer.py tests/unit/test_doors.py tests/unit/test_ownership.py tests/unit/test_store_*.py \
    tests/unit/test_frames.py tests/unit/test_accounts.py tests/unit/test_limits.py tests/property tests/differential tests/fuzz
