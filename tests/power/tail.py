"""Damage to the newest log, at every byte of its end: does the store notice?

    python -m tests.power.tail [--bytes 8192] [--step 1] [--seed N]

A store is killed after its last answer, so that every byte in its log is acknowledged. Then, at each offset of the log's end:
a bit flipped, a sector zeroed, everything from there on cut off, or sixteen bytes there twice. Right verdicts: everything is
there; or one clear refusal. Exit 1 else. Two lives: a log that grew, and a log that was written over an older one.
"""

import argparse
import multiprocessing
import os
import pickle
import random
import secrets
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from paychan.settings.models import StoreConfig

from .disk import SECTOR, Disk, write_out
from .history import configure
from .images import scratch
from .judge import Finding, discard, judge
from .recording import Recording, record

LIVES = (("plain", "log that grew"), ("rotating", "log written over"))
BATCH = 128
TWICE = 16
READ_SECONDS_MAX = 2.0


def damages(content: bytes, at: int, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield (kind, content with one damage at an offset)."""
    flipped = bytearray(content)
    flipped[at] ^= 1 << rng.randrange(8)
    yield "flip", bytes(flipped)
    zeroed = content[:at] + bytes(min(SECTOR, len(content) - at)) + content[at + SECTOR :]
    if zeroed != content:
        yield "zero", zeroed
    yield "truncate", content[:at]
    yield "duplicate", content[: at + TWICE] + content[at:]


def newest_log(recording: Recording) -> tuple[Disk, str, int]:
    """Return the disk at the end, the log that was written last, and where in it the last write ended."""
    disk, name, end = Disk(recording.root), "", 0
    for op in recording.ops:
        disk.run(op)
        if op.kind == "w":
            file = disk._open[op.fd][1]
            found = next((name for name, other in disk.names.items() if other is file), "")
            if found.endswith(".log"):
                name, end = found, op.offset + len(op.data)
    return disk, name, end


ENDLESS = "endless"


def _judge_apart(recording: Recording, config: StoreConfig, count: int) -> Finding:
    """Judge an image in a process of its own. One that does not end in READ_SECONDS_MAX counts as refused by `store.peek`,
    which does the same with a longer time (tests/unit/store/test_store_mark.py shows it at work)."""
    receiver, sender = os.pipe()
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, READ_SECONDS_MAX)
        os.write(sender, pickle.dumps(judge(recording, config, count, count)))
        os._exit(0)
    os.close(sender)
    with open(receiver, "rb") as pipe:
        told = pipe.read()
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        return Finding(refused=ENDLESS)
    return pickle.loads(told) if told else Finding(problem=f"the process ended with {status}")


_life: list = []


def _work(task: tuple[range, str, Path]) -> tuple[Counter, list[str]]:
    offsets, seed, keep_in = task
    recording, image, name = _life
    verdicts: Counter = Counter()
    problems = []
    count = len(recording.groups)
    with tempfile.TemporaryDirectory(prefix="paychan-tail-", dir=scratch()) as place:
        config = configure(Path(place))
        state = config.common.state_dir
        for at in offsets:
            for kind, content in damages(image[name], at, random.Random(f"{seed}-{at}")):
                write_out({**image, name: content}, recording.root, state)
                finding = _judge_apart(recording, config, count)
                word = "refused" if finding.refused else "complete"
                if finding.refused == ENDLESS:
                    word = "refused, as reading does not end"
                if finding.problem and not finding.refused:
                    word = "SILENT LOSS"
                    problems.append(f"{recording.name} {kind} at {at}: {finding.problem}")
                verdicts[kind, word] += 1
                discard(state)
    return verdicts, problems


def campaign(size: int, step: int, seed: str, jobs: int, directory: Path, unmark: bool = False) -> tuple[Counter, list[str]]:
    """Damage the last `size` bytes of each life's log at every `step`-th offset. unmark: without the store's mark."""
    verdicts: Counter = Counter()
    problems: list[str] = []
    for shape, what in LIVES:
        recording = record(directory / f"tail-{shape}", shape, seed, "tail")
        disk, name, end = newest_log(recording)
        image = disk.living()
        if unmark:
            image = {path: content for path, content in image.items() if not path.endswith(".mark")}
        _life[:] = recording, image, name
        offsets = range(max(0, end - size), end, step)
        tasks = [(offsets[at : at + BATCH], seed, directory) for at in range(0, len(offsets), BATCH)]
        here: Counter = Counter()
        with multiprocessing.get_context("fork").Pool(jobs) as pool:
            for number, (found, wrong) in enumerate(pool.imap_unordered(_work, tasks), 1):
                here += found
                problems += wrong
                print(f"{what}: {number}/{len(tasks)}", end="\r" if sys.stdout.isatty() else "\n", flush=True)
        print(f"{what}: the last {len(offsets)} offsets of {end} bytes (file of {len(image[name])})", dict(here), flush=True)
        verdicts += here
    return verdicts, problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=int, default=8192)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--seed", default=str(secrets.randbelow(1 << 32)))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--unmark", action="store_true", help="the control: without the store's mark; exit 1 unless losses are silent"
    )
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory(prefix="paychan-lives-", dir=scratch()) as directory:
        size, step, seed, jobs = arguments.bytes, arguments.step, arguments.seed, arguments.jobs
        verdicts, problems = campaign(size, step, seed, jobs, Path(directory), arguments.unmark)
    print(dict(verdicts))
    for problem in problems[:10]:
        print(f"  {problem}")
    return int(bool(problems) != arguments.unmark)


if __name__ == "__main__":
    sys.exit(main())
