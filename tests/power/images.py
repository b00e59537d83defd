"""The power-loss campaign: recorded lives, crash points, what a disk may keep, and the real store on each image.

    python -m tests.power.images --count 100000 [--seed N] [--jobs 2] [--only LIFE:NUMBER] [--control nosync|liar|nowal|early]

Demanded of each image: the store opens with exactly the content after some whole number of groups, not fewer than were
answered before the power went and not more than were begun; or it refuses in one clear line. Exit 1 else; a failing image is kept.
A control is a store that is broken on purpose: there the exit is 1 unless violations were found.
"""

import argparse
import multiprocessing
import os
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .disk import Disk, write_out
from .history import configure
from .judge import Finding, discard, judge
from .recording import Recording, names, record

CONTROLS = ("nosync", "liar", "nowal", "early")
BATCH = 250


def scratch() -> str:
    """Return a directory for images: in memory if the machine has such."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()


def points(recording: Recording, seed: str, numbers: range) -> list[tuple[int, int, bool | None]]:
    """Return (crash point, image number, keep) sorted by point: first every point twice, with nothing and with everything
    kept; then points at random, where keep is None and chance decides."""
    last = len(recording.ops)
    found = []
    for number in numbers:
        if number < 2 * last:
            found.append((number // 2 + 1, number, bool(number % 2)))
        else:
            found.append((random.Random(f"{seed}-{number}-point").randint(1, last), number, None))
    return sorted(found, key=lambda point: point[:2])


def images(recording: Recording, seed: str, numbers: range) -> Iterator[tuple[int, int, int, dict[str, bytes | None]]]:
    """Yield (image number, groups acknowledged, groups begun, image)."""
    disk, done, begun, acknowledged = Disk(recording.root), 0, 0, 0
    for point, number, keep in points(recording, seed, numbers):
        for op in recording.ops[done:point]:
            disk.run(op)
            if op.kind == "k":
                if op.data[:1] == b"G":
                    begun += 1
                else:
                    acknowledged = begun
        done = max(done, point)
        if keep is None:
            image = disk.image(random.Random(f"{seed}-{number}"))
        elif keep:
            image = disk.living()
        else:
            image = disk.least()
        yield number, acknowledged, begun, image


def try_images(recording: Recording, seed: str, numbers: range, keep_in: Path) -> Iterator[tuple[int, Finding, str]]:
    """Judge images; yield (number, finding, where a bad one is kept)."""
    with tempfile.TemporaryDirectory(prefix="paychan-images-", dir=scratch()) as place:
        config = configure(Path(place))
        state = config.common.state_dir
        for number, acknowledged, begun, image in images(recording, seed, numbers):
            write_out(image, recording.root, state)
            finding = judge(recording, config, acknowledged, begun)
            kept = ""
            if finding.problem:
                kept = str(keep_in / f"{recording.name}-{number}")
                discard(Path(kept))
                write_out(image, recording.root, Path(kept))
            discard(state)
            yield number, finding, kept


_lives: list[Recording] = []
"""Of the campaign that runs; the processes of the pool are forked with it."""


def _work(task: tuple[int, str, range, Path]) -> tuple[str, int, Counter, list[str]]:
    life, seed, numbers, keep_in = task
    recording = _lives[life]
    refusals: Counter = Counter()
    problems = []
    for number, finding, kept in try_images(recording, seed, numbers, keep_in):
        if finding.refused:
            refusals[finding.refused.rpartition("does not open: ")[2][:160]] += 1
        if finding.problem:
            problems.append(f"{recording.name}:{number}: {finding.problem} (kept in {kept})")
    return recording.name, len(numbers), refusals, problems


def record_lives(directory: Path, seed: str, control: str = "") -> list[Recording]:
    """Record every life of a campaign, or those of a control."""
    if control:
        how = "" if control == "liar" else control
        return [record(directory / f"{shape}-{control}", shape, seed, how, control == "liar") for shape in ("hot", "rotating")]
    return [record(directory / f"{shape}{how}", shape, seed, how) for shape, how in names()]


def campaign(
    lives: list[Recording], seed: str, count: int, jobs: int, keep_in: Path, show: bool = False
) -> tuple[int, Counter, list[str]]:
    """Judge `count` images, shared out among the lives. Return how many, the refusals by text, and what was wrong."""
    share = -(-count // len(lives))
    _lives[:] = lives
    tasks = [
        (life, seed, range(start, min(start + BATCH, share)), keep_in)
        for start in range(0, share, BATCH)
        for life in range(len(lives))
    ]
    done, refusals, problems, begun = 0, Counter(), [], time.monotonic()
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for _, number, refused, wrong in pool.imap_unordered(_work, tasks):
            done += number
            refusals += refused
            problems += wrong
            if show:
                rate = done / (time.monotonic() - begun)
                bar = "#" * (30 * done // (share * len(lives)))
                text = f"[{bar:30}] {done} images, {rate:.0f}/s, {sum(refusals.values())} refused, {len(problems)} violations"
                print(text, end="\r" if sys.stdout.isatty() else "\n", flush=True)
    return done, refusals, problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", default=str(secrets.randbelow(1 << 32)))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", help="LIFE:NUMBER, one image again")
    parser.add_argument("--control", choices=CONTROLS, default="")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "paychan-bad-images")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    arguments.keep.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="paychan-lives-", dir=scratch()) as directory:
        lives = record_lives(Path(directory), arguments.seed, arguments.control)
        for life in lives:
            print(f"{life.name}: {len(life.ops)} records, {len(life.groups)} groups", flush=True)
        if arguments.only:
            name, number = arguments.only.rsplit(":", 1)
            life = next(life for life in lives if life.name == name)
            findings = list(try_images(life, arguments.seed, range(int(number), int(number) + 1), arguments.keep))
            print(findings)
            return int(any(finding.problem for _, finding, _ in findings))
        done, refusals, problems = campaign(lives, arguments.seed, arguments.count, arguments.jobs, arguments.keep, show=True)
    print(f"\n{done} images, {sum(refusals.values())} refused, {len(problems)} violations (seed {arguments.seed})")
    for text, number in refusals.most_common():
        print(f"  refused {number}: {text}")
    for problem in problems[:20]:
        print(f"  {problem}")
    return int(not problems) if arguments.control else int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
