"""The store's database, if it is PostgreSQL: asked by the store's own command, which alone has a driver and knows its schema."""

import json
import os
import subprocess
import sys

from .machine import Machine
from .verdicts import NotAsked, Verdict, bad, not_asked, ok, warning

SECONDS_MAX = 20
LAG_SECONDS_MAX = 10.0
VERSION_MIN = 150_000
REPLICATE = "synchronous_standby_names = 'ANY 1 (...)' and fsync = on, as docs/CLUSTER.md has them"


def database(machine: Machine) -> list[Verdict]:
    if machine.store.postgres is None:
        raise NotAsked("the store's data is in its state directory")
    command = [sys.executable, "-m", "store", "postgres", "look", os.fspath(machine.directory)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=SECONDS_MAX, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired:
        return [bad("primary", "the database does not answer in time", "see its machines and the network")]
    if done.returncode:
        said = " ".join(done.stderr.split())[-300:]
        return [
            bad(
                "primary",
                said or f"`paychan-store postgres look` ended with status {done.returncode}",
                "docs/CLUSTER.md, Setting it up",
            )
        ]
    return judge(json.loads(done.stdout))


def judge(facts: dict[str, object]) -> list[Verdict]:
    """facts: what `paychan-store postgres look` prints."""
    found = [ok("primary", f"{facts['primary']} is the primary")]
    found += [
        warning("machines", trouble, "see that machine") for trouble in _texts(facts["troubles"]) if "is a standby" not in trouble
    ]
    version = facts["server_version"]
    if isinstance(version, int) and version < VERSION_MIN:
        found.append(bad("version", f"PostgreSQL {version // 10_000}", f"{VERSION_MIN // 10_000} or newer is needed"))
    else:
        found.append(ok("version", f"PostgreSQL {int(str(version)) // 10_000}"))
    wanted, schema = facts["schema_wanted"], facts["schema"]
    if schema == wanted:
        found.append(ok("schema", f"version {schema}"))
    else:
        found.append(
            bad("schema", f"version {schema}, and {wanted} is needed", "`paychan-store postgres init` makes it where there is none")
        )
    for name, good in (("fsync", ("on",)), ("full_page_writes", ("on",)), ("synchronous_commit", ("on", "remote_apply"))):
        if facts[name] in good:
            found.append(ok(name, f"{name} is {facts[name]}"))
        else:
            found.append(
                bad(name, f"{name} is {facts[name]}: what was answered can be lost", f"set {name} = on, and reload the database")
            )
    return found + _standbys(str(facts["synchronous_standby_names"]), facts["standbys"])


def _standbys(names: str, rows: object) -> list[Verdict]:
    if not names:
        return [bad("replication", "synchronous_standby_names is empty: one machine would have the payments alone", REPLICATE)]
    standbys = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    syncing = [row for row in standbys if row.get("sync_state") in ("sync", "quorum") and row.get("state") == "streaming"]
    if standbys and all(row.get("state") is None for row in standbys):  # PostgreSQL tells that to some roles only
        why = f"{len(standbys)} standbys are connected; whether they confirm is not told to the store's role"
        return [not_asked("replication", why)]
    if not syncing:
        return [bad("replication", "no standby is connected that confirms: nothing is answered", "start one, or see its log")]
    found = [ok("replication", f"{len(syncing)} standbys confirm")]
    if len(syncing) == 1:
        found = [warning("replication", "one standby confirms: if it is lost, nothing is answered", "run two, docs/CLUSTER.md")]
    for row in syncing:
        lag = row.get("lag")
        if isinstance(lag, int | float) and lag > LAG_SECONDS_MAX:
            found.append(warning("lag", f"{str(row.get('name'))[:60]} confirms after {lag:.1f} s", "see its disk and the network"))
    return found


def _texts(value: object) -> list[str]:
    return [str(one)[:300] for one in value] if isinstance(value, list) else []
