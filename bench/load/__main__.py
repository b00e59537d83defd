"""`python -m bench.load`, behind ./bench/run.sh: measures everything in the table of targets, or compares two results."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.load import compare
from bench.load.failure import Failed, positive
from paychan import printing

if TYPE_CHECKING:
    from bench.load.scene import Size

NAME = "bench/run.sh"
RESULTS = Path(__file__).parent.parent / "results"


def _parser() -> argparse.ArgumentParser:
    description = "Measures everything in the table of targets and writes RESULTS/COMMIT-INSTANT.md, .json and plots, and the same "
    parser = argparse.ArgumentParser(prog=NAME, description=description + "as RESULTS/latest.*; or compares two results.")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--long", action="store_true", help="a million channels and more rounds, some 15 minutes; else about three")
    form.add_argument("--tiny", action="store_true", help="seconds, to see that it runs: its numbers mean nothing")
    form.add_argument(
        "--compare", nargs=2, type=Path, metavar=("A.json", "B.json"), help="measure nothing, put two results side by side"
    )
    parser.add_argument("--only", metavar="SCENE", help="print the rows of this scene alone, keep no result: Selling, Forwarding")
    parser.add_argument("--rounds", type=positive, metavar="N", help="instead of 7, of the long form 15")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON there, too")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="instead of bench/results")
    parser.add_argument("--publish", action="store_true", help="write RESULTS/published.* too, which git tracks")
    return parser


def _measure(arguments: argparse.Namespace) -> None:
    try:
        from bench.load import results
        from bench.load.run import run
        from bench.load.scene import LONG, SHORT, TINY
    except ImportError as error:
        raise Failed(f"{error}: ./bench/run.sh builds and installs what is needed") from error
    size = LONG if arguments.long else TINY if arguments.tiny else SHORT
    if arguments.only:
        _measure_one(arguments.only, replace(size, rounds=arguments.rounds) if arguments.rounds else size)
        return
    results.prepare(arguments.results)
    result = run(replace(size, rounds=arguments.rounds) if arguments.rounds else size)
    file = results.write(result, arguments.results, arguments.publish)
    if arguments.json:
        arguments.json.write_bytes(file.read_bytes())
    printing.show(file.with_suffix(".md").read_text(encoding="utf-8"))
    printing.say(f"{NAME}: written to {file.with_suffix('')}.* and {arguments.results}/{results.LATEST}.*")


def _measure_one(name: str, size: "Size") -> None:
    """Measure one of the scenes that have their rows to themselves."""
    from bench.load.forwarding import Forwarding
    from bench.load.report import targets
    from bench.load.rows import forwarding_rows, selling_rows
    from bench.load.run import measure
    from bench.load.selling import Selling

    if name == Selling.__name__:
        printing.show(targets(selling_rows(measure(size, (Selling,)), size)))
    elif name == Forwarding.__name__:
        printing.show(targets(forwarding_rows(measure(size, (Forwarding,)))))
    else:
        raise Failed(f"--only {name}: only Selling and Forwarding have their rows to themselves")


def main() -> int:
    """Parse the command line, measure or compare, report; return the exit status."""
    arguments = _parser().parse_args()
    try:
        if arguments.compare:
            printing.show(compare.compare(*arguments.compare))
        else:
            _measure(arguments)
    except Failed as error:
        printing.say(f"{NAME}: {error}")
        return 1
    except OSError as error:
        printing.say(f"{NAME}: {error.filename or 'the system'}: {error.strerror or error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(printing.run(NAME, main))
