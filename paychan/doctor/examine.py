"""All checks, one after the other. One that fails ends itself, and nothing else; what it failed with is told by its place alone."""

from collections.abc import Callable
from pathlib import Path

from ..printing import place_of
from . import build, certificates, clock, configuration, disk, limits, memory, node, permissions, ports, postgres, running
from .machine import Machine
from .verdicts import NotAsked, Verdict, not_asked, warning

Check = Callable[[Machine], list[Verdict]]

CHECKS: tuple[tuple[str, Check], ...] = (
    ("configuration", configuration.files),
    ("permissions", permissions.state_dir),
    ("permissions", permissions.files),
    ("permissions", permissions.key),
    ("permissions", permissions.sockets),
    ("disk", disk.disk),
    ("clock", clock.pace),
    ("clock", clock.chain),
    ("node", node.source),
    ("limits", limits.open_files),
    ("limits", limits.kernel),
    ("ports", ports.ports),
    ("certificates", certificates.cluster),
    ("certificates", certificates.sellers),
    ("signer", memory.signer),
    ("postgres", postgres.database),
    ("build", build.python),
    ("build", build.compiled),
    ("build", build.door),
    ("running", running.system),
)
"""Subject and check. A subject may have several, each of which is asked whatever becomes of the others."""


def examine(directory: Path, checks: tuple[tuple[str, Check], ...] = CHECKS) -> list[tuple[str, Verdict]]:
    """Return subject and verdict of everything that was asked of a configuration directory and this machine. Changes nothing."""
    machine = Machine(directory)
    return [(subject, verdict) for subject, check in checks for verdict in _one(check, machine)]


def _one(check: Check, machine: Machine) -> list[Verdict]:
    name = check.__name__.strip("_")
    try:
        return check(machine)
    except NotAsked as reason:
        return [not_asked(name, str(reason))]
    except OSError as error:
        why = f"{error.filename or ''}: {error.strerror or type(error).__name__}".removeprefix(": ")
        return [warning(name, f"could not be asked: {why}", "ask as the user who runs the processes")]
    except Exception as error:
        why = f"the check failed with {type(error).__name__} at {place_of(error.__traceback__)}"
        return [warning(name, why, "please report it")]
