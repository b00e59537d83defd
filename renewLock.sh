#!/bin/sh
# ./renewLock.sh: renews requirements.txt (what runs and builds) and requirements-dev.txt (that, and what tests need) from the ranges in
# pyproject.toml: the newest versions in range, for every supported Python and platform, each with the hashes of its files. Commit the result
# when ./runTests.sh has passed with it. What is in these files is what ./runEverything.sh, ./runTests.sh and CI install.
set -eu
ROOT=$(dirname "$(readlink -f "$0")")
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"${PYTHON:-python3}" -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check uv
cd "$ROOT"
"$place/venv/bin/python" - > "$place/build.in" <<'PYTHON'
import tomllib

with open("pyproject.toml", "rb") as file:
    print(*tomllib.load(file)["build-system"]["requires"], sep="\n")
PYTHON

_lock() {  # FILE ARGUMENTS...
    file=$1
    shift
    "$place/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes --no-annotate --no-header \
        --no-emit-index-url --no-emit-find-links --output-file "$place/$file" pyproject.toml "$place/build.in" "$@"
    { echo "# Made by ./renewLock.sh; do not edit."; cat "$place/$file"; } > "$file"
}

_lock requirements.txt --extra cluster --extra gateway --extra receipts
_lock requirements-dev.txt --extra dev --constraint requirements.txt
