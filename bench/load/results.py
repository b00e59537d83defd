"""The files of a result: by commit and instant, once more under the name `latest`, and under `published` if it is to be tracked."""

import shutil
import tempfile
from pathlib import Path

from bench.load.report import Result, as_json, as_markdown

LATEST, PUBLISHED = "latest", "published"
PLOTS = ("throughput", "latency")


def prepare(directory: Path) -> None:
    """Make the directory of results, before anything is measured in vain. Raises OSError if it cannot be written."""
    directory.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=directory).close()


def name_of(result: Result) -> str:
    """Return what the names of a result's own files begin with."""
    return f"{result.commit}-{result.begun:%Y%m%dT%H%M%SZ}"


def write(result: Result, directory: Path, publish: bool = False) -> Path:
    """Write report, JSON and plots; return the file of the JSON that keeps its name. Raises OSError."""
    from bench.load.plots import draw  # loading matplotlib takes a second, and memory that a measurement may feel

    own = name_of(result)
    draw(result.record, result.size, directory, own)
    for name in (own, LATEST, *([PUBLISHED] if publish else [])):
        (directory / f"{name}.json").write_text(as_json(result) + "\n", encoding="utf-8")
        (directory / f"{name}.md").write_text(as_markdown(result, name), encoding="utf-8")
        for plot in PLOTS if name != own else ():
            shutil.copyfile(directory / f"{own}-{plot}.png", directory / f"{name}-{plot}.png")
    return directory / f"{own}.json"
