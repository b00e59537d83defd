"""The tests' own test: `python -m tests.mutation.run [--module paychan/core/fees.py] [--sample N --seed S] [--jobs N]`.

Makes small slips in the modules that hold money rules (mutate.py), one at a time, and runs the tests that should notice
(modules.py). A slip that no test notices is listed. Exit status 1 if fewer than SCORE_MIN percent are noticed in all, equivalent
ones left out.
"""

import argparse
import os
import random
import secrets
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .equivalent import EQUIVALENT
from .modules import MODULES
from .mutate import Mutant, list_mutants, mutated
from .trial import CPU_FACTOR, CPU_SECONDS_MIN, ROOT, SURVIVED, Outcome, finish, preload, start

SCORE_MIN = 85


@dataclass
class Result:
    """Of one module."""

    module: str
    equivalent: int
    noticed: int = 0
    survivors: list[Mutant] = field(default_factory=list)

    @property
    def count(self) -> int:
        return self.noticed + len(self.survivors)


def baseline(module: str) -> float:
    """Run a module's tests on the module as it is; return their CPU seconds. Raises SystemExit if they do not pass."""
    pid, began = start(module, None, MODULES[module], 600), time.monotonic()
    while (outcome := finish(pid, began, 600)) is None:
        time.sleep(0.01)
    if outcome.status != SURVIVED:
        sys.exit(f"{module}: its tests do not pass without any slip (status {outcome.status})")
    return outcome.cpu


def tried(module: str, mutants: Iterable[Mutant], jobs: int, cpu_seconds: float) -> Iterator[tuple[Mutant, Outcome]]:
    """Try mutants, a few at a time; yield each with what became of it."""
    source = (ROOT / module).read_text()
    waiting, running = list(reversed(list(mutants))), {}
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            pid = start(module, mutated(source, mutant.number), MODULES[module], cpu_seconds)
            running[pid] = mutant, time.monotonic()
        for pid, (mutant, began) in list(running.items()):
            outcome = finish(pid, began, cpu_seconds)
            if outcome is not None:
                del running[pid]
                yield mutant, outcome
        time.sleep(0.005)


def try_module(module: str, sample: int | None, seed: int, jobs: int) -> Result:
    """Try a module's mutants, or `sample` of them."""
    mutants = list_mutants((ROOT / module).read_text())
    known = EQUIVALENT.get(module, {})
    counted = [mutant for mutant in mutants if mutant.name not in known]
    if sample is not None and sample < len(counted):
        counted = random.Random(f"{seed} {module}").sample(counted, sample)
    result = Result(module, len(mutants) - len([mutant for mutant in mutants if mutant.name not in known]))
    cpu_seconds = max(CPU_SECONDS_MIN, CPU_FACTOR * baseline(module))
    for mutant, outcome in tried(module, counted, jobs, cpu_seconds):
        if outcome.status == SURVIVED:
            result.survivors.append(mutant)
        else:
            result.noticed += 1
        _show(f"{module}: {result.count} of {len(counted)}")
    _show("")
    return result


def _show(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:60}\r", end="", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="makes small slips on purpose, and counts those that no test notices")
    parser.add_argument("--module", action="append", choices=MODULES, metavar="FILE", help="default: all")
    parser.add_argument("--sample", type=int, help="so many mutants of each module, chosen by the seed")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    preload()
    if arguments.sample is not None:
        print(f"seed {arguments.seed}")
    print(f"{'module':32} {'slips':>6} {'noticed':>8} {'score':>6} {'equivalent':>11}", flush=True)
    results = []
    for module in arguments.module or MODULES:
        result = try_module(module, arguments.sample, arguments.seed, arguments.jobs)
        results.append(result)
        _print_row(module, result.count, result.noticed, result.equivalent)
        for mutant in sorted(result.survivors, key=lambda mutant: mutant.number):
            print(f"    {module}:{mutant.lineno}: {mutant.what}: {mutant.line}", flush=True)
    count, noticed = sum(result.count for result in results), sum(result.noticed for result in results)
    _print_row("all", count, noticed, sum(result.equivalent for result in results))
    return 0 if 100 * noticed >= SCORE_MIN * count else 1


def _print_row(name: str, count: int, noticed: int, equivalent: int) -> None:
    score = f"{100 * noticed / count:.1f}" if count else "-"
    print(f"{name:32} {count:6} {noticed:8} {score:>6} {equivalent:11}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
