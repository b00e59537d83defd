#!/bin/sh
# ./runEverything.sh CONFIG_DIR: starts signer, store and server with the configuration in CONFIG_DIR (config/debug/ to try it),
# prints one line `ready http://HOST:PORT server_pubkey=HEX`, and stops everything on Ctrl-C or SIGTERM. The first use builds.
set -eu
if [ $# -ne 1 ]; then
    echo "Usage: $0 CONFIG_DIR" >&2
    exit 2
fi
ROOT=$(cd "$(dirname "$0")" && pwd)
EXTRAS=""
[ -e "$ROOT/.venv/.built[dev]" ] && EXTRAS="[dev]"
. "$ROOT/setupVenv.sh"
exec "$ROOT/.venv/bin/paychan" run "$1"
