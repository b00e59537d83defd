"""The system, if it runs: what its own /readyz says, and whether all of it is there."""

from .machine import Machine
from .ports import is_ours
from .verdicts import NotAsked, Verdict, bad, ok, warning

SEE = "docs/OPERATING.md, Watching, says what to do"
NEAR = 0.8
"""Of a limit: from here on it is worth a look."""


def system(machine: Machine) -> list[Verdict]:
    config, ready = machine.server, machine.ready
    if not ready and not machine.pids:
        raise NotAsked("it does not run")
    found = judge(ready, config.workers) if is_ours(ready) else []
    if not found:
        why = "the server does not answer /readyz" if not ready else "something else than our server answers at its port"
        found.append(bad("server", why, "see its log; start it"))
    for name in ("signer", "store"):
        if name not in machine.pids:
            found.append(
                bad(name, f"the {name} does not answer at its address", f"see its log; start it, or ask as the {name}'s user")
            )
        else:
            found.append(ok(name, f"the {name} answers"))
    return found


def judge(ready: dict[str, object], workers: int) -> list[Verdict]:
    """ready: what /readyz says. workers: how many there should be."""
    if ready.get("ready") is not True:
        return [bad("server", f"not ready: {word(ready.get('code'))} {word(ready.get('detail'), 300)}".rstrip(), SEE)]
    found = [ok("server", "it is ready")]
    count = ready.get("workers")
    if count == workers:
        found.append(ok("workers", f"{workers} of {workers}"))
    else:
        found.append(warning("workers", f"{word(count)} of {workers} are there", "one may just be replaced; else see the log"))
    if stopped := ready.get("stopped_shards"):
        number = len(stopped) if isinstance(stopped, dict) else 0
        found.append(bad("shards", f"{number} shards are stopped", "docs/OPERATING.md, A stopped shard"))
    if (way := word(ready.get("granian_door"), 300)) != "own":
        found.append(
            warning("door", f"requests come in by the way `{way}`", "install the granian of requirements.txt; no --access-log")
        )
    if ahead := ready.get("clock_ahead_seconds"):
        found.append(warning("clock", f"the kept time is {word(ahead)} seconds ahead of the wall clock", SEE))
    if uneconomic := ready.get("uneconomic_channels"):
        found.append(
            warning(
                "settling",
                f"{word(uneconomic)} channels cannot pay for their settlement",
                "fees may fall; or lower settlement.fee_per_byte_min",
            )
        )
    cluster = ready.get("cluster")
    if isinstance(cluster, dict) and cluster.get("trouble"):
        found.append(warning("cluster", word(cluster["trouble"], 300), "docs/FORWARDING.md"))
    return found + _exposure(ready.get("exposure"))


def _exposure(exposure: object) -> list[Verdict]:
    """Compare what is unsettled with its limits."""
    found = []
    for value, most in (("open_value", "total_value_max"), ("unsettled_value", "unsettled_value_max")):
        numbers = (exposure.get(value), exposure.get(most)) if isinstance(exposure, dict) else (None, None)
        if type(numbers[0]) is int and type(numbers[1]) is int and numbers[0] > NEAR * numbers[1]:
            why = f"{value} is {numbers[0]} satoshi, and exposure.{most} {numbers[1]}"
            found.append(warning(value, why, "see why settlements wait, or raise the limit"))
    return found


def word(value: object, most: int = 60) -> str:
    """Return a value that another process said, as a short text without control characters."""
    return "".join(symbol if symbol.isprintable() else "?" for symbol in str(value if value is not None else "")[:most])
