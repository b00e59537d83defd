"""The README's speed table: `python -m bench.speed_table [--payments N] [--rounds N]` starts real systems and prints it.

Each round measures, one after the other on the same machine, the raw verification rate of libsecp256k1 and the payments per second
with one and with two workers; the median round counts. CPU is what the kernel says of the processes, for each acknowledged payment.
Every payment is synced to disk before it is acknowledged; client and servers share the machine's cores.
"""

import argparse
import contextlib
import io
import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import uvloop

from bench.bench_samples import PAYMENTS, SAMPLE
from bench.pay_channels import prepare, run_channels, server_pubkey
from paychan._fast.meter import VerifyBatch
from tests.reference import sighash
from tests.system import running

CONNECTIONS = (5, 64, 128)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def verify_seconds() -> float:
    """Return the CPU seconds of one raw libsecp256k1 verification, over distinct signatures."""
    digests = [sighash(SAMPLE.account, paid.change_value, 0x83) for paid in PAYMENTS]
    rows = [(paid.signature, digest, SAMPLE.terms.client_pubkey) for paid, digest in zip(PAYMENTS, digests, strict=True)]
    batch = VerifyBatch(rows)
    started_at = time.process_time()
    count = sum(batch.run() for _ in range(20))
    return (time.process_time() - started_at) / count


def measure(workers: int, connections: int, payments: int) -> tuple[float, float, float]:
    """Return payments per second, and CPU seconds of the workers and of the store for each payment."""
    with tempfile.TemporaryDirectory() as directory, running(Path(directory), workers) as system:
        host = f"127.0.0.1:{system.port}"
        key = server_pubkey("127.0.0.1", system.port)
        channels = [prepare(host, key, max(1, payments // connections)) for _ in range(connections)]
        pids, store = system.worker_pids(), system.child_pid("store")
        before = sum(map(cpu_seconds, pids)), cpu_seconds(store)
        with contextlib.redirect_stderr(io.StringIO()):
            tally, seconds = uvloop.run(run_channels("127.0.0.1", system.port, channels))
        after = sum(map(cpu_seconds, pids)), cpu_seconds(store)
    per_payment = [(b - a) / tally.payments for a, b in zip(before, after, strict=True)]
    return tally.payments / seconds, per_payment[0], per_payment[1]


def main() -> None:
    """Measure and print the table in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m bench.speed_table", description=__doc__.splitlines()[0])
    parser.add_argument("--payments", type=int, default=20_000, help="for each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in ("granian", "uvloop", "coincurve", "rocksdict")), end="")
    print(f"; {arguments.payments} payments, median of {arguments.rounds} rounds; sync on\n")
    print("| workers | connections | payments/s | CPU a payment, workers + store (µs) | V (µs) | verify share |")
    print("|---|---|---|---|---|---|")
    for workers in (1, 2):
        for connections in CONNECTIONS:
            rounds = [(*measure(workers, connections, arguments.payments), verify_seconds()) for _ in range(arguments.rounds)]
            rate, worker, store, verify = sorted(rounds)[len(rounds) // 2]
            share = statistics.median(row[3] / (row[1] + row[2]) for row in rounds)
            cpu = f"{worker * 1e6:.0f} + {store * 1e6:.0f}"
            print(f"| {workers} | {connections} | {rate:.0f} | {cpu} | {verify * 1e6:.0f} | {share:.2f} |", flush=True)


if __name__ == "__main__":
    main()
