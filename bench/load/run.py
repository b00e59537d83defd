"""A whole measurement: the scenes are started first; then each round takes one slice of everything in turn, every other one
backwards, so that what drifts does not favour anything. Any wrong answer ends it.
"""

import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from bench.load.call import CompiledCall
from bench.load.doors import Doors
from bench.load.forwarding import Forwarding
from bench.load.many import ManyChannels
from bench.load.measure import VerifyMeter
from bench.load.progress import Progress, is_shown
from bench.load.provenance import commit
from bench.load.report import Result
from bench.load.scene import Record, Scene, Size
from bench.load.selling import Selling
from bench.load.store_alone import StoreAlone

SCENES = (CompiledCall, Doors, Forwarding, ManyChannels, StoreAlone, Selling)
START_SHARE = 12
"""Steps that starting one scene counts for in the progress bar."""

STEPS_OF_A_ROUND = 55


def run(size: Size) -> Result:
    """Measure everything. Raises Failed, OSError."""
    measured, begun, clock = commit(), datetime.now(UTC), time.monotonic()
    return Result(measure(size, SCENES), size, measured, begun, time.monotonic() - clock)


def measure(size: Size, makers: tuple[type[Scene], ...]) -> Record:
    """Measure some scenes, with the servers' state in a directory that is removed at the end. Raises Failed, OSError."""
    directory = Path(tempfile.mkdtemp(prefix="paychan-load-"))
    try:
        return _measure(directory, size, makers)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _measure(directory: Path, size: Size, makers: tuple[type[Scene], ...]) -> Record:
    record, verify = Record(), VerifyMeter()
    scenes: list[Scene] = []
    progress = Progress(START_SHARE * len(makers) + size.rounds * STEPS_OF_A_ROUND)
    try:
        for make in makers:
            progress.step(f"starting: {make.__name__}")
            scene = make(directory / make.__name__, size, verify, record)
            scenes.append(scene)
            scene.start()
            progress.step(f"started: {make.__name__}", START_SHARE)
        for number in range(1, size.rounds + 1):
            for scene in scenes:
                for what, step in scene.steps()[:: 1 if number % 2 else -1]:
                    progress.step(f"round {number} of {size.rounds}" + (f": {what}" if is_shown() else ""), 1)
                    step()
        for scene in scenes:
            progress.step(f"finishing: {type(scene).__name__}")
            scene.finish()
    finally:
        progress.end()
        for scene in reversed(scenes):
            scene.stop()
    return record
