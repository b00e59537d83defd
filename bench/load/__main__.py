"""`python -m bench.load`: measures everything in the table of targets, and writes bench/results/latest.md with plots and JSON.

The scenes are started first; then each round takes one slice of everything in turn, every other one backwards, so that what
drifts does not favour anything. Any wrong answer ends it with status 1.
"""

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from bench.load.call import CompiledCall
from bench.load.doors import Doors
from bench.load.forwarding import Forwarding
from bench.load.many import ManyChannels
from bench.load.measure import VerifyMeter, WrongAnswer
from bench.load.progress import Progress
from bench.load.report import as_json, as_markdown
from bench.load.rows import make_rows
from bench.load.scene import LONG, SHORT, TINY, Record, Scene, Size
from bench.load.store_alone import StoreAlone

RESULTS = Path(__file__).parent.parent / "results"
SCENES = (CompiledCall, Doors, Forwarding, ManyChannels, StoreAlone)
START_SHARE = 12
"""Steps that starting one scene counts for in the progress bar."""


def run(directory: Path, size: Size) -> Record:
    """Measure everything; `directory`: for the servers' state. Raises WrongAnswer."""
    record, verify = Record(), VerifyMeter()
    scenes: list[Scene] = []
    progress = Progress(START_SHARE * len(SCENES) + size.rounds * 45)
    try:
        for make in SCENES:
            progress.step(f"starting: {make.__name__}")
            scene = make(directory / make.__name__, size, verify, record)
            scenes.append(scene)
            scene.start()
            progress.step(f"started: {make.__name__}", START_SHARE)
        for number in range(1, size.rounds + 1):
            for scene in scenes:
                for what, measure in scene.steps()[:: 1 if number % 2 else -1]:
                    progress.step(f"round {number} of {size.rounds}" + (f": {what}" if sys.stderr.isatty() else ""), 1)
                    measure()
        for scene in scenes:
            progress.step(f"finishing: {type(scene).__name__}")
            scene.finish()
    finally:
        progress.end()
        for scene in reversed(scenes):
            scene.stop()
    return record


def write(record: Record, size: Size, results: Path, json_file: Path, seconds: float) -> str:
    """Write report, JSON and plots; return the report."""
    from bench.load.plots import draw  # loading matplotlib takes a second, and memory that a measurement may feel

    results.mkdir(parents=True, exist_ok=True)
    rows = make_rows(record, size)
    report = as_markdown(rows, record, size, seconds)
    (results / "latest.md").write_text(report)
    json_file.write_text(as_json(rows, record, size) + "\n")
    draw(record, size, results)
    return report


def main() -> None:
    """Parse the command line, measure, report."""
    parser = argparse.ArgumentParser(prog="bench/run.sh", description=__doc__.splitlines()[0])
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--long", action="store_true", help="a million channels and more rounds, some 15 minutes; else about three")
    form.add_argument("--tiny", action="store_true", help="seconds, to see that it runs: its numbers mean nothing")
    parser.add_argument("--rounds", type=int, metavar="N", help="instead of 7, of the long form 15")
    parser.add_argument("--json", type=Path, metavar="FILE", help="instead of RESULTS/latest.json")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    arguments = parser.parse_args()
    size = LONG if arguments.long else TINY if arguments.tiny else SHORT
    if arguments.rounds:
        size = replace(size, rounds=arguments.rounds)
    begun = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="paychan-load-"))
    try:
        record = run(directory, size)
    except WrongAnswer as error:
        sys.exit(f"failed: {error}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    json_file = arguments.json or arguments.results / "latest.json"
    print(write(record, size, arguments.results, json_file, time.monotonic() - begun))


if __name__ == "__main__":
    main()
