#!/bin/sh
# ./demo.sh: the life of two payment channels on a Bitcoin node of its own (regtest: worthless coins), with the real commands.
# One is opened, paid on, closed and settled on the chain. The other's server disappears, and the payer takes everything back.
# Needs what ./runEverything.sh needs; where there is no Node.js with npm, one is installed into .venv. Uses free ports and a temporary directory; leaves nothing behind.
# PAYMENTS: how many (default 1000). PAYCHAN_PYTHON: as for ./runEverything.sh.
set -eu
ROOT=$(dirname "$(readlink -f "$0")")
if [ -z "${PAYCHAN_PYTHON:-}" ]; then
    NEEDS=node
    . "$ROOT/setupVenv.sh"
    PAYCHAN_PYTHON=$VENV_PYTHON
fi
PAYMENTS=${PAYMENTS:-1000}
unset PAYCHAN_WORKERS PAYCHAN_CLOCK_START
dir=$(mktemp -d)
export ROOT PAYCHAN_PYTHON PYTHONPATH="$ROOT" PAYCHAN_STATE_DIR=state XDG_DATA_HOME="$dir"
everything="" node="" ended="" why="a step ended unexpectedly"

# --- telling, checking, cleaning up ---

step() { printf '\n== %s\n' "$*"; }
say() { printf '   %s\n' "$*"; }
fail() { why=$*; exit 1; }
paychan() { "$PAYCHAN_PYTHON" -m paychan "$@"; }
node() { "$PAYCHAN_PYTHON" -m tests.node --config config "$@"; }

try() {  # COMMAND..: show it and its status in $status; its output is in the files out and err
    say "\$ $(echo "$*" | sed 's/ --json//; s/^node/python -m tests.node/')"
    status=0
    "$@" >out 2>err || status=$?
}
must() { try "$@"; [ "$status" = 0 ] || fail "this command ended with status $status: $*"; }
print() { sed "s/^/     /" "${1:-out}"; }
field() {  # KEY..: a value in the JSON of the last output
    "$PAYCHAN_PYTHON" -c '
import json, sys
found = json.load(open("out"))
for key in sys.argv[1:]:
    found = found[int(key) if isinstance(found, list) else key]
print(found)' "$@"
}
output() { echo "$(field outputs "$1" value) $(field outputs "$1" address)"; }  # N: an output of the transaction shown last
expect() {  # WHAT IS WANTED
    [ "$2" = "$3" ] || fail "$1 is $2, not $3"
}
patiently() {  # WHAT COMMAND..: until the command succeeds, which it must within a minute or two
    what=$1
    shift
    tries=0
    until "$@"; do
        [ "$tries" -lt 600 ] || fail "$what took too long"
        tries=$((tries + 1))
        sleep 0.1
    done
}
is_ready() {  # PID FILE: whether the process has said so
    kill -0 "$1" 2>/dev/null || fail "it did not start"
    grep -qs 'node ready\|^ready' "$2"
}
is_settled() { paychan channel config "$outpoint" >out 2>err && grep -q '^phase: settled' out; }
children() { cat "/proc/$1/task/$1/children"; }  # PID: the processes that it started
is_gone() { ! grep -qs '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$1/status"; }  # PID: ended, reaped or not
stop() { [ -z "$1" ] || { kill "$1" 2>/dev/null || true; wait "$1" 2>/dev/null || true; }; }
clean_up() {
    trap '' INT TERM HUP
    stop "$everything"
    stop "$node"
    if [ -z "$ended" ]; then
        printf '\ndemo: failed: %s\n' "$why"
        for log in err out server.log node.log; do
            [ ! -s "$log" ] || { echo "--- the end of $log"; tail -n 15 "$log"; }
        done
    fi
    cd /
    rm -rf "$dir"
    [ -n "$ended" ] || exit 1
}
trap clean_up EXIT
trap 'fail interrupted' INT TERM HUP

# --- the demonstration ---

cd "$dir"
cp -r "$ROOT/config/regtest" config
ports=$("$PAYCHAN_PYTHON" -c '
import socket
probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(probe.getsockname()[1] for probe in probes))')
PORT=${ports% *} node_port=${ports#* }
export PORT
sed -i "s/^port = 18443/port = $node_port/" config/server.toml
chain="--bitcoind http://127.0.0.1:$node_port --cookie state/node.cookie"

step "Start a Bitcoin node, and signer, store and server"
say "\$ ./runEverything.sh config/regtest/    (here with free ports)"
"$ROOT/runEverything.sh" config >ready 2>server.log &
everything=$!
patiently "starting" is_ready "$everything" ready
grep '^ready' ready >out
print
must node mine 1
print

step "The payer makes a key, agrees with the server on a channel, and funds it with 5 000 000 satoshi"
must paychan keygen payer.key
print
must paychan fund "http://127.0.0.1:$PORT" --amount 5000000 --expires-in 3 --network regtest --name first --key payer.key --json
address=$(field funding_address) change_address=$(field change_address) price=$(field open_price)
say "  pay 5000000 satoshi to $address; the open price is $price"
must node fund "$address" 5000000
print
must node mine 1

step "Open the channel, and pay"
must paychan open first $chain
print
must paychan pay first 250
print
say "$PAYMENTS payments of 100 satoshi by the client library, each on the payer's disk before it is sent, and on the server's"
say "before it is acknowledged:"
"$PAYCHAN_PYTHON" - "$PAYMENTS" >out 2>err <<'PYTHON' || fail "the payments failed"
import sys
import time
from paychan.client import Channel

with Channel("paychan/first.json") as channel:
    begun = time.monotonic()
    for _ in range(int(sys.argv[1])):
        channel.pay(100)
    print(f"{int(sys.argv[1]) / (time.monotonic() - begun):.0f} payments/s, one after the other; {channel.record.paid_value} satoshi paid")
PYTHON
print
must paychan status first
grep 'phase\|value\|expires\|refund' out >view
print view
paychan status first --json >out
paid=$(field paid_value) change=$(field change_value)
outpoint=$(field funding_outpoint)
expect "what was paid" "$paid" $((price + 250 + PAYMENTS * 100))

step "Close the channel: the server publishes the settlement, and six blocks bury it"
must paychan close first --json
txid=$(field settlement_txid)
say "  settled by $txid"
must node mine 6
must node tx "$txid"
print
node tx "$txid" --json >out
fee=$(field fee)
expect "the settlement's depth" "$(field confirmations)" 6
expect "the payer's change" "$(output 0)" "$change $change_address"
destination=$(sed -n 's/^funds_destination_address = "\(.*\)".*/\1/p' config/signer.toml)
expect "the server's part" "$(output 1)" "$((paid - fee)) $destination"
say "  $change to the payer + $((paid - fee)) to the server + $fee to the miners = 5000000"
node tx "$txid" --hex >settlement.hex
must paychan close first --settlement settlement.hex
grep settlement out >pays
print pays
say "The operator's view:"
patiently "the server's taking note" is_settled
say "\$ paychan channel config/regtest/ $outpoint"
grep '^phase\|^received\|^settlement_txid' out >view
print view

step "A second channel, whose server disappears"
must paychan fund "http://127.0.0.1:$PORT" --amount 2000000 --expires-in 0.3 --network regtest --name second --key payer.key --json
address=$(field funding_address) expiry=$(field exp_time)
must node fund "$address" 2000000
must node mine 1
must paychan open second $chain --json
must paychan pay second 1000 --json
server=""
for pid in $(children "$everything"); do
    ! tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q 'paychan run' || server=$pid
done
[ -n "$server" ] || fail "the server is not among the children of ./runEverything.sh"
parts=$(children "$server")
say "\$ kill -9 $server    (paychan run; its three processes end with it)"
kill -9 "$server"
for pid in $parts; do
    patiently "ending" is_gone "$pid"
done
wait "$everything" 2>/dev/null && status=0 || status=$?
everything=""
expect "the status that ./runEverything.sh keeps" "$status" 137
try paychan pay second 1000 --deadline 1
[ "$status" != 0 ] || fail "a payment succeeded without a server"
print err
say "The node alone, on the same chain:"
sh config/node.sh >node.log 2>&1 &
node=$!
patiently "starting" is_ready "$node" node.log
print node.log

step "The payer takes everything back"
try paychan refund second --fee-rate 5 --broadcast $chain
[ "$status" = 1 ] || fail "a refund before the expiry was not refused"
print err
say "Once the chain's median time is past the expiry:"
must node time $((expiry + 3600))
must node mine 12
must paychan refund second --fee-rate 5 --broadcast $chain --json
txid=$(field txid) value=$(field value)
must node mine 1
must node tx "$txid"
print
node tx "$txid" --json >out
expect "the refund's depth" "$(field confirmations)" 1
expect "the refund" "$(output 0)" "$value $change_address"

ended=yes
printf '\ndemo: all well\n'
