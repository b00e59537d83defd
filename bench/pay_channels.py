"""The command behind `benchPayChanServer.sh`: how many payments a running server takes."""

import argparse
import resource
import sys

from coincurve import PublicKey

from bench.load.failure import Failed, positive
from paychan import printing

NAME = "benchPayChanServer.sh"
PAYMENTS_MAX = 10_000_000
"""In all, as all are signed beforehand: some 5 GB."""

FILES_SPARE = 32
"""Open files beside the connections."""


def _allow_files(channels: int) -> None:
    """Have one open file for each channel. Raises Failed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = channels + FILES_SPARE
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise Failed(f"{channels} connections: at most {hard} files may be open here (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _pubkey(text: str) -> bytes:
    try:
        return PublicKey(bytes.fromhex(text)).format()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no public key in hex") from None


def main() -> int:
    """Parse the command line, run, report; return the exit status, 1 if an answer was wrong or none came."""
    parser = argparse.ArgumentParser(prog=NAME, description="Measures how many payments a server in debug mode takes.")
    parser.add_argument("payments", type=positive, metavar="NUM_PAYMENTS", help="one-satoshi payments for each channel")
    parser.add_argument("channels", type=positive, metavar="NUM_THREADS", help="channels, all paid at once, a connection each")
    parser.add_argument("server", metavar="HOST:PORT", help="of a server in debug mode")
    parser.add_argument("pubkey", nargs="?", type=_pubkey, default=b"", metavar="SERVER_PUBKEY", help="else it is asked for")
    arguments = parser.parse_args()
    total = arguments.payments * arguments.channels
    if total > PAYMENTS_MAX:
        parser.error(f"{total} payments: at most {PAYMENTS_MAX} are signed beforehand")
    try:
        from bench.load import paying
    except ImportError as error:
        printing.say(f"{NAME}: {error}: ./bench/run.sh builds what is needed")
        return 1
    try:
        server = paying.Server.parse(arguments.server)
    except ValueError:
        parser.error(f"{arguments.server!r} is no HOST:PORT, as in localhost:8000 or [::1]:8000")
    try:
        _allow_files(arguments.channels)
        tally = paying.run(server, arguments.channels, arguments.payments, arguments.pubkey)
    except (Failed, OSError) as error:
        printing.say(f"{NAME}: {error}")
        return 1
    p50, p99 = (tally.latency(share) * 1e3 for share in (0.5, 0.99))
    used = tally.client_cpu / tally.payments * 1e6
    printing.show(f"{tally.payments} payments executed in {tally.seconds:.2f} s over {arguments.channels} channels, no error")
    printing.show(f"{tally.payments / tally.seconds:.0f} payments per second (opening and closing not counted)")
    printing.show(f"latency p50 {p50:.1f} ms, p99 {p99:.1f} ms; the client used {used:.1f} µs of CPU a payment")
    return 0


if __name__ == "__main__":
    sys.exit(printing.run(NAME, main))
