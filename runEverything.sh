#!/bin/sh
# ./runEverything.sh CONFIG_DIR: starts signer, store and server with the configuration in CONFIG_DIR (config/debug/ to try it),
# prints one line `ready http://HOST:PORT server_pubkey=HEX`, and stops everything on Ctrl-C or SIGTERM. SIGHUP has the server read
# its configuration again, unless it means that the terminal was closed. The first use builds.
# If there is a CONFIG_DIR/node.sh, it is run beside them, started first and stopped last: config/regtest/ has a Bitcoin node.
# PAYCHAN_PYTHON: a Python that has what paychan needs, instead of .venv; nothing is built then.
set -eu
usage="Usage: $0 CONFIG_DIR   (config/debug/ to try it, config/regtest/ with a Bitcoin node; stop with Ctrl-C)"
case "${1:-}" in -h | --help) echo "$usage"; exit 0 ;; esac
if [ $# -ne 1 ]; then
    echo "$usage" >&2
    exit 2
fi
trap : HUP  # nothing runs yet that could be told
ROOT=$(dirname "$(readlink -f "$0")")
if [ -z "${PAYCHAN_PYTHON:-}" ]; then
    NEEDS=run
    [ ! -e "$1/node.sh" ] || NEEDS=node
    . "$ROOT/setupVenv.sh"
    PAYCHAN_PYTHON=$VENV_PYTHON
fi
# This checkout's code, wherever it is started from: no other one's that lies in the current directory or was installed elsewhere.
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1
if [ ! -e "$1/node.sh" ]; then
    trap '' HUP  # until the server's own handler is there
    exec "$PAYCHAN_PYTHON" -m paychan run "$1"
fi

# With a node there are two children: signals are handed on to the server, and when it has ended, the node ends.
export ROOT PAYCHAN_PYTHON
node="" server="" interrupted="" signalled="" terminal=""
ready=$(mktemp)
_has_terminal() { [ -t 3 ] || [ -t 1 ] || [ -t 2 ]; }
_hand_on() {
    interrupted=1 signalled=1
    kill "${server:-$node}" 2>/dev/null || true
}
_hang_up() {
    signalled=1
    if [ -n "$server" ]; then
        kill -HUP "$server" 2>/dev/null || true
    elif [ -n "$terminal" ] && ! _has_terminal; then  # it was closed
        _hand_on
    fi
}
_await() {  # PID; leaves its exit status in $status
    while :; do
        signalled="" status=0
        wait "$1" || status=$?
        [ -n "$signalled" ] || return 0
    done
}
_end() {
    [ -z "$node" ] || { kill "$node" || true; wait "$node" || true; } 2>/dev/null
    rm -f "$ready"
}
# What runs in the background has no other standard input, and a terminal is known by it.
if (: <&0) 2>/dev/null; then exec 3<&0; else exec 3</dev/null; fi
! _has_terminal || terminal=1
trap _hand_on INT TERM
trap _hang_up HUP
trap _end EXIT
(trap '' HUP && exec sh "$1/node.sh") >"$ready" 3<&- &
node=$!
while [ ! -s "$ready" ]; do
    kill -0 "$node" 2>/dev/null || { [ -n "$interrupted" ] || { echo "paychan: $1/node.sh did not start" >&2; exit 1; }; exit 0; }
    sleep 0.1
done
cat "$ready" >&2 || true
[ -z "$interrupted" ] || exit 0
(trap '' HUP && exec "$PAYCHAN_PYTHON" -m paychan run "$1") <&3 3<&- &
server=$!
[ -z "$interrupted" ] || kill "$server"
_await "$server"
exit "$status"
