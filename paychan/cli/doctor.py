"""`paychan doctor CONFIG_DIR...`: prints what every check came to."""

import argparse
import json
from pathlib import Path
from typing import Any

from .. import logs
from ..parts import require_server
from ..printing import show

EXITS = (
    "exit statuses: 0 nothing is wrong; 1 something may be (a warning); 2 wrong usage, or something is (bad); 3 interrupted; "
    "10 done, but the result could not be written to standard output"
)
ABOUT = "ask this machine for everything that can be wrong with a configuration, its node, disk, clock and limits; changes nothing"


def register(subparsers: Any) -> None:
    """Add the subcommand to an argparse parser."""
    parser = subparsers.add_parser("doctor", help=ABOUT, description=ABOUT, epilog=EXITS)
    parser.add_argument(
        "config_dirs", type=Path, nargs="+", metavar="CONFIG_DIR", help="holds server.toml, store.toml and signer.toml"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    """Print the verdicts, and for people first how to mend what is not well; the exit status says the worst."""
    require_server("paychan doctor")
    from ..doctor.examine import examine  # it looks at everything, and other commands should not wait for that
    from ..doctor.verdicts import Grade, bad, worst
    from ..instances import read_instances

    logs.silence()
    instances, _, together = read_instances(arguments.config_dirs)
    found = [
        (one.name if len(instances) > 1 else "", subject, verdict)
        for one, directory in zip(instances, arguments.config_dirs, strict=True)
        for subject, verdict in examine(directory)
    ]
    if len(instances) > 1:
        found += [("all", "instances", bad("apart", why, "give each its own")) for why in together]
    grade = worst([verdict for _, _, verdict in found])
    if arguments.json:
        rows = [
            {**({"instance": instance} if instance else {}), "subject": subject, **vars(verdict)}
            for instance, subject, verdict in found
        ]
        show(json.dumps({"worst": grade, "checks": rows}))
    else:
        lines = []
        for instance, subject, verdict in found:
            place = f"{instance}, " if instance else ""
            lines.append(f"{verdict.grade:<9}  {place}{subject}, {verdict.check}: {verdict.reason}")
            lines += [f"{'':<9}  -> {verdict.mend}"] if verdict.mend else []
        show("\n".join([*lines, f"worst: {grade}"]))
    return {Grade.BAD: 2, Grade.WARNING: 1}.get(grade, 0)
