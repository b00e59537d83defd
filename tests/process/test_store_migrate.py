"""Aim: a store is moved whole, and at no moment can both places be started, whenever the command is killed. Method: real stores on
RocksDB and on PostgreSQL, the real command, killed by itself before and after each of its steps."""

import argparse
import subprocess
import sys
from contextlib import ExitStack

import pytest

from paychan.exits import EXIT_BAD_CONFIG
from store import moving
from store.backup import BackupError
from store.moved import Moved
from tests import postgres
from tests.process.test_store_postgres import FUNDING, ROOT, STORE_TOML, Channel, Store, stores
from tests.system import wait_until

pytestmark = postgres.needed

KILLED = """
import os, signal, sys
from store import moving
from store.engines.postgres import moving as far, restoring

point, passed = int(sys.argv[1]), 0

def at():
    global passed
    passed += 1
    if passed == point:
        os.kill(os.getpid(), signal.SIGKILL)

def around(owner, name):
    inner = getattr(owner, name)
    def outer(*arguments, **named):
        at()
        result = inner(*arguments, **named)
        at()
        return result
    setattr(owner, name, outer)

for owner in (moving.Embedded, far.Database):
    for name in ("set_mark", "fill", "start"):
        around(owner, name)
around(moving.shutil, "rmtree")
around(moving, "compare")
around(far.pins, "write")
around(restoring.Filling, "_take")
sys.exit(moving.run(sys.argv[2:]))
"""


@pytest.fixture
def places(tmp_path):
    """Give (a store on RocksDB with three channels, which is stopped; one on PostgreSQL that has a schema and nothing else)."""
    with stores(tmp_path, postgres.shared(), "a") as (far,):
        near = Store(tmp_path / "near", postgres.shared(), "none")
        (near.directory / "store.toml").write_text(STORE_TOML.format(state=near.state, shards=8, pubkey=far_key(far), table=""))
        near.start()
        for number in range(3):
            channel = Channel(near, number).open()
            channel.pay()
            channel.feed.close()
            wait_until(lambda count=number + 1: near.log.read_text().count(" left") == count, 20, "the worker's leaving")
        stop(near)
        yield near, far
        near.kill()


def far_key(store):
    text = (store.directory / "store.toml").read_text()
    return text.split('server_pubkey = "')[1].split('"')[0]


def stop(store):
    store.process.terminate()
    assert store.end() == 0, store.log.read_text()


def migrate(source, target):
    return source.command("migrate", source.directory, target.directory)


def again(source, target):
    """The same in this process."""
    return moving.run([str(source.directory), str(target.directory)])


def moved(source, target):
    done = migrate(source, target)
    assert done.returncode == 0 and f"moved: the store is in {target.directory}; back: " in done.stdout, done
    assert "no problems" in done.stdout


def pay(store, value):
    """Start a store, pay a satoshi on its first channel, stop it. Return the epochs that it gave out."""
    store.start()
    channel = Channel(store)
    channel.value = value
    assert channel.pay() == 1
    channel.feed.close()
    epochs = channel.feed._epochs
    stop(store)
    return epochs


def refused(store, *texts):
    store.spawn()
    assert store.end() == EXIT_BAD_CONFIG
    for text in texts:
        assert store.says(text), store.log.read_text()


def test_a_store_is_moved_to_postgresql_and_back(places):
    near, far = places
    moved(near, far)
    refused(near, f"this store was moved to {far.directory}", f"back: paychan-store migrate {far.directory} {near.directory}")
    first = pay(far, FUNDING - 1)
    assert min(first) > 1 << 32
    again = migrate(near, far)
    assert (again.returncode, again.stdout) == (0, f"done already: the store is in {far.directory}\n")
    moved(far, near)
    refused(far, f"this store was moved to {near.directory}")
    second = pay(near, FUNDING - 2)
    assert min(second) > max(first) + (1 << 31)
    moved(near, far)  # over what was left there
    assert min(pay(far, FUNDING - 3)) > max(second) + (1 << 31)
    done = far.command("check", far.directory)
    assert done.returncode == 0 and "6 satoshi received on open ones" in done.stdout, done


def test_a_store_that_runs_elsewhere_writes_nothing_more_once_the_move_has_begun(places):
    """On another machine, where no lock is seen."""
    near, far = places
    moved(near, far)
    far.start()
    channel = Channel(far)
    channel.value = FUNDING - 1
    far.sql("SELECT paychan.set_moved('to /elsewhere')")
    channel.send()
    assert far.end() == 70 and far.says("is not at fence")
    refused(far, "this store was moved to /elsewhere")
    with pytest.raises(Exception, match="belongs to another store"):  # also for one that looks at no mark
        far.sql("SELECT paychan.begin_store('b', '', (SELECT substr(identity, 2) FROM paychan.cluster), 10, 0, 0, 0)")


def opened(stack, store):
    return moving._open(stack, store.directory, argparse.Namespace(admin="postgres", host=None))


def state(store):
    """Return (whether it could be started, its records but for what may change with a move)."""
    with ExitStack() as stack:
        place = opened(stack, store)
        if not place.holds_store():
            return place.mark() is None, []
        is_open = place.mark() is None
        with place.records() as records:
            return is_open, list(moving._comparable(records))


def there_is(store):
    with ExitStack() as stack:
        return opened(stack, store).holds_store()


def killed(point, source, target):
    """Return whether the command was killed at a point; else it is done."""
    command = [sys.executable, "-c", KILLED, str(point), str(source.directory), str(target.directory)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (0, -9), done
    return done.returncode == -9


@pytest.mark.parametrize("is_back", [False, True], ids=["there", "back"])
def test_whenever_it_is_killed_one_place_has_it_all_and_said_again_it_ends(places, is_back):
    source, target = places
    if is_back:
        moved(source, target)
        source, target = target, source
    _, before = state(source)
    assert len(before) > 6
    point = 1
    while killed(point, source, target):
        (is_source, there), (is_target, arrived) = state(source), state(target)
        assert not (is_source and is_target and arrived), f"point {point}: both can be started"
        if not (is_target and arrived):
            assert there == before, f"point {point}: something is gone"
        if point % 2:
            assert again(target, source) == 0 or not there_is(target)  # given up, or moved back
        else:
            assert again(source, target) == 0
            assert state(target) == (True, before) and not state(source)[0]
            assert again(target, source) == 0
        assert state(source) == (True, before), f"point {point}"
        point += 1 if point < 6 else 5
    assert point > 12 and state(target) == (True, before) and not state(source)[0]


def test_what_is_in_the_way_is_refused_and_nothing_is_changed(places, tmp_path):
    near, far = places
    other = Store(tmp_path / "other", postgres.shared(), "none")
    text = (near.directory / "store.toml").read_text()
    (other.directory / "store.toml").write_text(text.replace(str(near.state), str(other.state)))
    done = migrate(other, near)
    assert done.returncode == 1 and "holds no store" in done.stderr, done
    other.start()
    stop(other)
    done = migrate(near, other)
    assert done.returncode == 1 and "holds a store already" in done.stderr, done
    (other.directory / "store.toml").write_text(text)
    done = migrate(near, other)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done
    far_text = (far.directory / "store.toml").read_text()
    (far.directory / "store.toml").write_text(far_text.replace("shard_count = 8", "shard_count = 16"))
    done = migrate(near, far)
    assert done.returncode == 2 and "this store was created with 8 shards" in done.stderr, done
    (far.directory / "store.toml").write_text(far_text)
    assert state(near)[0] and state(far)[0]
    moved(near, far)


def test_a_store_that_was_moved_on_is_not_brought_back_from_its_first_place(places, tmp_path):
    near, far = places
    third = Store(tmp_path / "third", postgres.shared(), "none")
    text = (near.directory / "store.toml").read_text()
    (third.directory / "store.toml").write_text(text.replace(str(near.state), str(third.state)))
    moved(near, far)
    moved(far, third)
    done = migrate(near, far)
    assert done.returncode == 1 and f"this store was moved to {third.directory}" in done.stderr, done
    assert state(third)[0] and not state(near)[0] and not state(far)[0]


# --- the comparison ---


class Pairs:
    """Records that are a dictionary."""

    def __init__(self, pairs):
        self.pairs = pairs

    def walk(self, prefix):
        return iter(sorted((key, value) for key, value in self.pairs.items() if key.startswith(prefix)))

    def get(self, names):
        return [self.pairs.get(name) for name in names]


SENT = {b"S1": b"a", b"T1": b"b", b"E\0\0": (5).to_bytes(8, "little"), b"V": (7).to_bytes(8, "little") + bytes(8)}
ARRIVED = SENT | {b"E\0\0": (6).to_bytes(8, "little"), b"E\0\1": bytes(8), b"G": bytes(8)}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({b"S1": b"A"}, "is not what was sent"),
        ({b"S1": None}, "is not what was sent"),
        ({b"T1": None}, "is not what was sent"),
        ({b"U": b""}, "more has arrived"),
        ({b"E\0\0": (5).to_bytes(8, "little")}, "has not gone up"),
        ({b"V": (8).to_bytes(8, "little") + bytes(8)}, "the sums differ"),
        ({b"G": (1).to_bytes(8, "little")}, "the sums differ"),
    ],
    ids=str,
)
def test_what_differs_is_found(change, why):
    moving.compare(Pairs(SENT), Pairs(ARRIVED))
    arrived = {key: value for key, value in (ARRIVED | change).items() if value is not None}
    with pytest.raises(BackupError, match=why):
        moving.compare(Pairs(SENT), Pairs(arrived))


def test_a_mark_that_is_none_is_refused():
    assert Moved.parse(str(Moved("to", "/a b"))) == Moved("to", "/a b")
    for text in ("", "to", "to ", "into /a", "/a"):
        with pytest.raises(ValueError, match="is no mark of a move"):
            Moved.parse(text)
