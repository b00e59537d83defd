"""Aim: what the doctor says of a fact is right, and one check that fails ends no other. Method: the pure judgements, on many
facts."""

import errno
import os
from pathlib import Path

import pytest

from paychan.chain.base import Tip
from paychan.chain.bitcoind import NodeFacts
from paychan.doctor import build, certificates, clock, disk, limits, memory, node, permissions, ports, postgres, running
from paychan.doctor.examine import examine
from paychan.doctor.verdicts import Grade, NotAsked, Verdict, bad, not_asked, ok, warning, worst

OK, NOT_ASKED, WARNING, BAD = Grade.OK, Grade.NOT_ASKED, Grade.WARNING, Grade.BAD
GIGABYTE = 1 << 30
NOW = 1_800_000_000


def grades(verdicts) -> dict[str, Grade]:
    return {verdict.check: verdict.grade for verdict in (verdicts if isinstance(verdicts, list) else [verdicts])}


@pytest.mark.parametrize(
    ("given", "expected"),
    [([], OK), ([ok("a", "")], OK), ([not_asked("a", "")], OK), ([ok("a", ""), warning("b", "", "")], WARNING)],
)
def test_the_worst_is_told(given, expected):
    assert worst(given) is expected
    assert worst([*given, bad("z", "", ""), ok("y", "")]) is BAD


def test_a_check_that_fails_ends_no_other_and_tells_no_text_of_its_failure():
    def secret(_) -> list[Verdict]:
        raise ValueError("the-secret")

    def shut(_) -> list[Verdict]:
        raise PermissionError(errno.EACCES, "Permission denied", "/a/file")

    def senseless(_) -> list[Verdict]:
        raise NotAsked("there is none")

    found = examine(Path("nowhere"), (("a", secret), ("b", shut), ("c", senseless), ("d", lambda _: [ok("last", "well")])))
    assert [(subject, verdict.grade) for subject, verdict in found] == [("a", WARNING), ("b", WARNING), ("c", NOT_ASKED), ("d", OK)]
    assert "the-secret" not in repr(found)
    assert "ValueError at " in found[0][1].reason and "/a/file: Permission denied" in found[1][1].reason


def test_every_verdict_that_is_not_well_says_what_to_do():
    verdicts = [verdict for _, verdict in examine(Path("nowhere"))]
    assert all(verdict.mend for verdict in verdicts if verdict.grade in (WARNING, BAD))
    assert all(verdict.reason and "\n" not in verdict.reason for verdict in verdicts)


# --- disk ---

FAST = tuple(0.001 for _ in range(64))


@pytest.mark.parametrize(
    ("facts", "name", "grade"),
    [
        (disk.Disk("ext4", 10 * GIGABYTE, 10**6, FAST), "sync", OK),
        (disk.Disk("ext4", 10 * GIGABYTE, 10**6, (*FAST[:-1], 0.2)), "sync", WARNING),
        (disk.Disk("ext4", 10 * GIGABYTE, 10**6, tuple(0.03 for _ in FAST)), "sync", WARNING),
        (disk.Disk("ext4", 10 * GIGABYTE, 10**6, tuple(0.000001 for _ in FAST)), "sync", WARNING),
        (disk.Disk("ext4", 10 * GIGABYTE, 10**6, (), "Read-only file system"), "sync", NOT_ASKED),
        (disk.Disk("ext4", 10 * GIGABYTE, -1, FAST), "room", OK),
        (disk.Disk("ext4", 1 * GIGABYTE, 10**6, FAST), "room", WARNING),
        (disk.Disk("ext4", 1 << 20, 10**6, FAST), "room", BAD),
        (disk.Disk("ext4", 10 * GIGABYTE, 3, FAST), "room", BAD),
        (disk.Disk("ext4", 10 * GIGABYTE, 10**6, FAST), "kind", OK),
        (disk.Disk("tmpfs", 10 * GIGABYTE, 10**6, FAST), "kind", BAD),
        (disk.Disk("nfs4", 10 * GIGABYTE, 10**6, FAST), "kind", WARNING),
        (disk.Disk("overlay", 10 * GIGABYTE, 10**6, FAST), "kind", WARNING),
        (disk.Disk("", 10 * GIGABYTE, 10**6, FAST), "kind", OK),
    ],
)
def test_disk(facts, name, grade):
    assert grades(disk.judge(facts, "/state"))[name] is grade


def test_in_debug_mode_a_disk_in_memory_loses_nothing():
    assert grades(disk.judge(disk.Disk("tmpfs", 10 * GIGABYTE, -1, FAST), "/state", is_debug=True))["kind"] is WARNING


def test_the_kind_of_a_file_system_is_that_of_the_nearest_mount():
    mounts = "\n".join(
        f"1 0 0:1 / {point} rw - {kind} none rw"
        for point, kind in (("/", "ext4"), ("/var", "xfs"), ("/var/lib/a\\040b", "nfs"), ("/run", "tmpfs"), ("/run", "ramfs"))
    )
    kinds = {
        path: disk.kind_of(Path(path), f"{mounts}\nnonsense") for path in ("/x", "/var/y", "/var/lib/a b/c", "/run", "/variety")
    }
    assert kinds == {"/x": "ext4", "/var/y": "xfs", "/var/lib/a b/c": "nfs", "/run": "ramfs", "/variety": "ext4"}


# --- who may ---


@pytest.mark.parametrize(
    ("mode", "owner", "may_write", "grade"),
    [
        (0o700, 1000, True, OK),
        (0o755, 1000, True, OK),
        (0o1777, 1000, True, BAD),
        (0o702, 1000, True, BAD),
        (0o770, 1000, True, WARNING),
        (0o700, 1001, False, WARNING),
        (0o500, 1000, False, BAD),
    ],
)
def test_state_directory(mode, owner, may_write, grade):
    assert permissions.judge_state_dir(permissions.Place("/state", mode, owner, may_write), 1000).grade is grade


@pytest.mark.parametrize(("mode", "grade"), [(0o600, OK), (0o400, OK), (0o640, BAD), (0o604, BAD)])
def test_key_file(mode, grade):
    assert permissions.judge_key(permissions.Place("/key", mode, 0)).grade is grade


@pytest.mark.parametrize(("mode", "grade"), [(0o644, OK), (0o664, WARNING), (0o666, BAD), (0o1777, OK)])
def test_configuration_files(mode, grade):
    assert permissions.judge_files([permissions.Place("/ok", 0o600, 0), permissions.Place("/server.toml", mode, 0)]).grade is grade


@pytest.mark.parametrize(("mode", "grade"), [(0o600, OK), (0o660, OK), (0o666, BAD)])
def test_sockets(mode, grade):
    assert permissions.judge_sockets([permissions.Place("/a.sock", mode, 0)])[0].grade is grade


# --- clock, node ---


@pytest.mark.parametrize(
    ("step", "is_kept", "expected"),
    [
        (0.0, True, {"pace": OK, "kept": OK}),
        (-3.0, None, {"pace": WARNING, "kept": NOT_ASKED}),
        (0.0, False, {"pace": OK, "kept": WARNING}),
    ],
)
def test_pace(step, is_kept, expected):
    assert grades(clock.judge_pace(clock.Pace(step, is_kept))) == expected


@pytest.mark.parametrize(("doubt", "behind", "grade"), [("", -3600, OK), ("far", -3600, BAD), ("", 5, BAD)])
def test_clock_against_the_chain(doubt, behind, grade):
    assert clock.judge_chain(doubt, behind).grade is grade


GOOD_NODE = NodeFacts(300_000, 10, frozenset({"txindex", "basic block filter index"}), False, True, True)


def answer(age: int = 600, seconds: float = 0.1, **changed) -> node.Answer:
    tip = Tip(900_000, b"\1" * 32, NOW - age, NOW - age - 3000)
    return node.Answer("", seconds, tip, NodeFacts(**{**vars(GOOD_NODE), **changed}))


def test_a_good_node_is_good():
    assert set(grades(node.judge(answer(), 10_800, NOW)).values()) == {OK}


@pytest.mark.parametrize(
    ("given", "name", "grade"),
    [
        (node.Answer("The Bitcoin node cannot be reached", 0.1), "trusted", BAD),
        (answer(age=11_000), "tip", BAD),
        (answer(age=6_000), "tip", WARNING),
        (answer(seconds=3.0), "speed", WARNING),
        (answer(peers=1), "peers", WARNING),
        (answer(is_pruned=True), "pruned", WARNING),
        (answer(indexes=frozenset()), "txindex", WARNING),
        (answer(indexes=frozenset({"txindex"})), "basic block filter index", WARNING),
        (answer(has_wallets=False), "wallets", BAD),
        (answer(estimates_fees=False), "fees", NOT_ASKED),
    ],
)
def test_node(given, name, grade):
    assert grades(node.judge(given, 10_800, NOW))[name] is grade


# --- limits, ports, certificates, the signer ---


@pytest.mark.parametrize(("most", "grade"), [(-1, OK), (10_000, OK), (5_000, OK), (4_999, WARNING), (200, BAD)])
def test_open_files(most, grade):
    assert limits.judge_files("open files", "a process", most, 5_000).grade is grade


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (limits.Kernel(4096, 0, 0), {"somaxconn": OK, "overcommit": OK, "swap": OK}),
        (limits.Kernel(128, 2, 1 << 20), {"somaxconn": WARNING, "overcommit": WARNING, "swap": WARNING}),
        (limits.Kernel(None, None, None), {"somaxconn": NOT_ASKED}),
    ],
)
def test_kernel(facts, expected):
    assert grades(limits.judge_kernel(facts)) == expected


@pytest.mark.parametrize(
    ("number", "is_ours", "grade"),
    [
        (0, False, OK),
        (errno.EADDRINUSE, True, OK),
        (errno.EADDRINUSE, False, BAD),
        (errno.EADDRNOTAVAIL, True, BAD),
        (errno.EACCES, False, BAD),
    ],
)
def test_ports(number, is_ours, grade):
    assert ports.judge(ports.Port("http.port", "127.0.0.1", 8000, number, is_ours)).grade is grade


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({}, False),
        ({"code": "owner_moved", "status": 503}, True),
        ({"ready": True, "server_pubkey": "02"}, True),
        ({"ready": True}, False),
    ],
)
def test_whose_readyz_it_is(state, expected):
    assert ports.is_ours(state) is expected


@pytest.mark.parametrize(("left", "grade"), [(100 * 86_400, OK), (86_400, WARNING), (-1, BAD)])
def test_certificates(left, grade):
    assert certificates.judge("cluster", NOW + left, NOW).grade is grade


@pytest.mark.parametrize(("most", "required", "grade"), [(-1, True, OK), (65_536, True, OK), (0, True, BAD), (0, False, WARNING)])
def test_memory_that_can_be_locked(most, required, grade):
    assert memory.judge_limit(most, required=required).grade is grade


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (memory.Signer(132, 2, True), {"locked": OK, "filter": OK}),
        (memory.Signer(0, 0, True), {"locked": WARNING, "filter": WARNING}),
        (memory.Signer(132, 2, False), {"locked": OK, "filter": WARNING}),
    ],
)
def test_signer_that_runs(facts, expected):
    assert grades(memory.judge(facts)) == expected


# --- build, running, database ---


@pytest.mark.parametrize(("version", "grade"), [((3, 11), OK), ((3, 13), OK), ((3, 10), WARNING), ((3, 14), WARNING)])
def test_python(version, grade):
    assert build.judge_python(version).grade is grade


def test_the_versions_of_python_are_those_of_the_package():
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert f'requires-python = ">={build.PYTHON_MIN[0]}.{build.PYTHON_MIN[1]}' in text
    assert f"Python :: {build.PYTHON_MAX[0]}.{build.PYTHON_MAX[1]}" in text
    assert f"Python :: {build.PYTHON_MAX[0]}.{build.PYTHON_MAX[1] + 1}" not in text


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        ([build.Module("a", False, False)], {"compiled": OK}),
        ([build.Module("a", True, False)], {"compiled": WARNING}),
        ([build.Module("a", False, True)], {"checked": WARNING}),
        ([build.Module("a", False, False, "ImportError")], {"compiled": BAD}),
        ([], {"compiled": BAD}),
    ],
)
def test_compiled_modules(modules, expected):
    assert grades(build.judge_modules(modules)) == expected


@pytest.mark.parametrize(
    ("age", "is_checkout", "is_stale"), [(60, True, True), (-60, True, False), (60, False, False)], ids=["new", "old", "installed"]
)
def test_a_module_older_than_its_source_is_seen_where_it_is_built(age, is_checkout, is_stale, tmp_path):
    directory = tmp_path / "paychan" / "_fast"
    directory.mkdir(parents=True)
    if is_checkout:
        (tmp_path / "setup.py").touch()
    (directory / "frame.pyx").touch()
    library = Path(build.importlib.import_module("paychan._fast.frame").__file__)
    os.utime(directory / "frame.pyx", (library.stat().st_mtime + age,) * 2)
    assert build._look(directory, "frame").is_stale is is_stale


READY = {
    "ready": True,
    "workers": 2,
    "server_pubkey": "02",
    "granian_door": "own",
    "stopped_shards": {},
    "exposure": {"open_value": 1, "total_value_max": 100, "unsettled_value": 1, "unsettled_value_max": 200},
}


@pytest.mark.parametrize(
    ("changed", "name", "grade"),
    [
        ({}, "server", OK),
        ({"workers": 1}, "workers", WARNING),
        ({"stopped_shards": {"7": "cache: ..."}}, "shards", BAD),
        ({"granian_door": "public: why"}, "door", WARNING),
        ({"clock_ahead_seconds": 100}, "clock", WARNING),
        ({"uneconomic_channels": 1}, "settling", WARNING),
        ({"cluster": {"trouble": "ends soon"}}, "cluster", WARNING),
        ({"exposure": {"open_value": 90, "total_value_max": 100}}, "open_value", WARNING),
        ({"ready": None, "code": "store_unavailable", "status": 503}, "server", BAD),
    ],
)
def test_running_system(changed, name, grade):
    assert grades(running.judge({**READY, **changed}, 2))[name] is grade


def test_what_another_process_says_is_one_short_line():
    assert running.word("a\nb\x1b[2J" + "x" * 1000) == "a?b?[2J" + "x" * 53


STANDBY = {"name": "n2", "state": "streaming", "sync_state": "quorum", "lag": 0.1}
DATABASE = {
    "primary": "10.0.0.1:5432",
    "troubles": ["10.0.0.2:5432 is a standby"],
    "server_version": 170_002,
    "schema": 1,
    "schema_wanted": 1,
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "synchronous_standby_names": "ANY 1 (n1, n2)",
    "standbys": [STANDBY, {**STANDBY, "name": "n3"}],
}


def test_a_good_database_is_good():
    assert set(grades(postgres.judge(DATABASE)).values()) == {OK}


@pytest.mark.parametrize(
    ("changed", "name", "grade"),
    [
        ({"troubles": ["10.0.0.2:5432 does not answer"]}, "machines", WARNING),
        ({"server_version": 140_000}, "version", BAD),
        ({"schema": None}, "schema", BAD),
        ({"fsync": "off"}, "fsync", BAD),
        ({"synchronous_commit": "local"}, "synchronous_commit", BAD),
        ({"synchronous_standby_names": ""}, "replication", BAD),
        ({"standbys": []}, "replication", BAD),
        ({"standbys": [{**STANDBY, "state": "catchup"}]}, "replication", BAD),
        ({"standbys": [STANDBY]}, "replication", WARNING),
        ({"standbys": [{"name": "n2", "state": None, "sync_state": None, "lag": None}]}, "replication", NOT_ASKED),
        ({"standbys": [STANDBY, {**STANDBY, "lag": 60.0}]}, "lag", WARNING),
    ],
)
def test_database(changed, name, grade):
    assert grades(postgres.judge({**DATABASE, **changed}))[name] is grade
