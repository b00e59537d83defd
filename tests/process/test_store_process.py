"""The store as a process: what it acknowledged survives kill -9, old owners are refused, and what must not run does not
start. Real processes in a temporary directory, fake workers over the real socket."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from paychan.core.channel import ABSENT, ChannelState, ChannelTerms, Phase
from paychan.core.payment import Payment
from paychan.core.sharding import shard_of
from paychan.rpc.connection import Address, ConnectionGone, FrameConnection, RemoteRefusal, connect
from paychan.rpc.store_messages import (
    PAYLOAD_MAX,
    Entry,
    EntryStatus,
    Hello,
    OwnerTable,
    Scan,
    Stored,
    StoreMessage,
    Welcome,
    decode_found,
    decode_load_reply,
    encode_commit,
    encode_load,
)
from tests.system import wait_until

ROOT = Path(__file__).parents[2]
OK, STALE_EPOCH, CONFLICT, FORBIDDEN, STOPPED = EntryStatus
SHARDS = 8
PUBKEY = b"\2" * 33
WAIT_S = 20

CONFIG = """
network = "test"
state_dir = "{state_dir}"
[store]
address = "unix:run/store.sock"
shard_count = 8
lease_ms = {lease_ms}
server_pubkey = "{pubkey}"
"""


class Store:
    """One store directory, and the process on it if one runs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "store.toml"
        self.configure()
        self.process: subprocess.Popen | None = None

    def configure(self, lease_ms: int = 60_000, **replaced: str) -> None:
        text = CONFIG.format(state_dir=self.directory / "state", lease_ms=lease_ms, pubkey=PUBKEY.hex())
        for old, new in replaced.items():
            text = text.replace(f"{old} = ", f"{old} = {new} # ")
        self.file.write_text(text)

    def spawn(self) -> subprocess.Popen:
        command = [sys.executable, "-m", "store", str(self.file)]
        return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)

    def start(self) -> None:
        self.process = self.spawn()
        for line in self.process.stderr:
            if "ready at" in line:
                return
        raise AssertionError("the store ended before it was ready")

    def kill(self, number: int) -> int:
        process, self.process = self.process, None
        os.kill(process.pid, number)
        process.communicate(timeout=WAIT_S)
        return process.returncode

    def run_to_end(self) -> tuple[int, str]:
        process = self.spawn()
        _, complaint = process.communicate(timeout=WAIT_S)
        return process.returncode, complaint


@pytest.fixture
def store(tmp_path):
    rig = Store(tmp_path)
    yield rig
    if rig.process is not None:
        rig.kill(signal.SIGKILL)


class Worker:
    """A fake worker: says HELLO, keeps the newest owner table, sends what it is told."""

    def __init__(self) -> None:
        self.owners: OwnerTable | None = None
        self.changed = asyncio.Event()
        self.closed = asyncio.Event()
        self.connection: FrameConnection | None = None
        self.number = 0

    def on_frame(self, _, kind: int, request_id: int, payload: bytes) -> None:
        assert (kind, request_id) == (StoreMessage.OWNERS, 0)
        self.owners = OwnerTable.decode(payload)
        self.changed.set()

    async def open(self, store: Store, name: str, network: str = "test", pubkey: bytes = PUBKEY) -> "Worker":
        address = Address.parse("unix:run/store.sock", store.directory / "state")
        self.connection = await connect(address, lambda: FrameConnection(PAYLOAD_MAX, self.on_frame, lambda _: self.closed.set()))
        welcome = Welcome.decode(await self.call(StoreMessage.HELLO, Hello(network, pubkey, name).encode()))
        assert welcome.shard_count == SHARDS
        self.number = welcome.worker_id
        return self

    async def call(self, kind: StoreMessage, payload: bytes = b"") -> bytes:
        return await asyncio.wait_for(self.connection.call(kind, payload), WAIT_S)

    async def owns(self, count: int) -> None:
        """Wait until this worker owns `count` shards."""
        while self.owners is None or len(self.shards()) != count:
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), WAIT_S)

    def shards(self) -> list[int]:
        return [shard for shard, (owner, _) in enumerate(self.owners.owners[:SHARDS]) if owner == self.number]

    def epoch(self, outpoint: bytes) -> int:
        return self.owners.owners[shard_of(outpoint, SHARDS)][1]

    async def commit(self, *entries: Entry) -> list[EntryStatus]:
        answer = await self.call(StoreMessage.COMMIT, encode_commit([entry.encode() for entry in entries]))
        return [EntryStatus(byte) for byte in answer]

    async def load(self, outpoint: bytes) -> Stored | None:
        return (await self.load_many(outpoint))[0]

    async def load_many(self, *outpoints: bytes) -> list[Stored | None]:
        return decode_load_reply(await self.call(StoreMessage.LOAD, encode_load(list(outpoints))))

    def entry(self, outpoint: bytes, old: int, value: int, expected: int, new: int = Phase.OPEN) -> Entry:
        state = ChannelState(Phase(new), Payment(value, b"s" * 70, 0x83)).serialize()
        terms = ChannelTerms(outpoint, PUBKEY, b"\3" * 33, 600_000_000, 1000, b"").serialize()
        shard = shard_of(outpoint, SHARDS)
        return Entry(shard, self.epoch(outpoint), outpoint, old, expected, state, terms if old == ABSENT else b"")


@asynccontextmanager
async def worker(store: Store, name: str = "w"):
    opened = await Worker().open(store, name)
    try:
        yield opened
    finally:
        opened.connection.close()


def channels(count: int) -> list[bytes]:
    return [number.to_bytes(2, "little") * 18 for number in range(1, count + 1)]


def test_acknowledged_updates_survive_kill_9_and_old_epochs_are_refused(store):
    keys = channels(200)

    async def before() -> tuple[dict[bytes, bytes], list[int]]:
        async with worker(store, "first") as first:
            await first.owns(SHARDS)
            async with worker(store, "second") as second:
                await asyncio.gather(first.owns(SHARDS // 2), second.owns(SHARDS // 2))
                assert first.owners == second.owners
                assert first.owners.workers == {first.number: "first", second.number: "second"}
                newest = {}
                for old, value, expected in ((ABSENT, 1000, 1000), (Phase.OPEN, 900, 1000)):
                    frames = []
                    for owner in (first, second):
                        mine = [key for key in keys if shard_of(key, SHARDS) in owner.shards()]
                        entries = [owner.entry(key, old, value, expected) for key in mine]
                        newest |= {entry.outpoint: entry.state for entry in entries}
                        frames += [owner.commit(*entries[::2]), owner.commit(*entries[1::2])]
                    for statuses in await asyncio.gather(*frames):
                        assert set(statuses) == {OK}
                assert len(newest) == len(keys)
                store.kill(signal.SIGKILL)
                await asyncio.wait_for(first.closed.wait(), WAIT_S)
                with pytest.raises(ConnectionGone):
                    await second.call(StoreMessage.HEARTBEAT)
                return newest, [epoch for _, epoch in first.owners.owners]

    async def after(newest: dict[bytes, bytes], old_epochs: list[int]) -> None:
        async with worker(store) as again:
            await again.owns(SHARDS)
            for key, state in newest.items():
                assert (await again.load(key)).state == state
            epochs = [epoch for _, epoch in again.owners.owners]
            assert all(new > old for new, old in zip(epochs, old_epochs, strict=True))
            good = again.entry(keys[0], Phase.OPEN, 800, 900)
            stale = Entry(good.shard, old_epochs[good.shard], keys[0], Phase.OPEN, 900, good.state)
            assert await again.commit(stale, good, good) == [STALE_EPOCH, OK, CONFLICT]

    store.start()
    result = asyncio.run(before())
    store.start()
    asyncio.run(after(*result))
    assert store.kill(signal.SIGTERM) == 0


def test_a_takeover_refuses_the_old_owner_at_once(store):
    async def scenario() -> None:
        async with worker(store, "old") as old:
            await old.owns(SHARDS)
            key = channels(1)[0]
            entries = [old.entry(key, ABSENT, 1000, 1000) for key in channels(60)]
            async with worker(store, "new") as new:
                await new.owns(SHARDS // 2)
                statuses = await old.commit(*entries)  # still under the epochs of before
                taken = [shard_of(key, SHARDS) in new.shards() for key in channels(60)]
                assert statuses == [STALE_EPOCH if is_new else OK for is_new in taken]
                assert {True, False} == set(taken)
            await old.owns(SHARDS)  # the closed connection gave its shards back
            assert (await old.load(key) is None) == taken[0]

    store.start()
    asyncio.run(scenario())


def test_a_silent_worker_loses_its_shards_and_its_connection(store):
    store.configure(lease_ms=400)

    async def scenario() -> None:
        async with worker(store, "silent") as silent, worker(store, "lively") as lively:
            beats = asyncio.create_task(beat(lively))
            await lively.owns(SHARDS)
            await asyncio.wait_for(silent.closed.wait(), WAIT_S)
            assert lively.connection.is_open
            beats.cancel()

    async def beat(lively: Worker) -> None:
        while True:
            assert len(await lively.call(StoreMessage.HEARTBEAT)) == 16
            await asyncio.sleep(0.1)

    store.start()
    asyncio.run(scenario())


def test_an_observer_reads_and_does_not_write(store):
    async def scenario() -> None:
        async with worker(store) as writer, worker(store, "") as observer:
            await writer.owns(SHARDS)
            first, second = channels(2)
            await writer.commit(writer.entry(first, ABSENT, 1000, 1000))
            await writer.commit(writer.entry(second, ABSENT, 0, 1000, Phase.CLOSING))
            assert (await observer.load(first)).state == writer.entry(first, ABSENT, 1000, 1000).state
            assert await observer.load(bytes(36)) is None
            many = await observer.load_many(second, bytes(36), first, first)
            assert many == [await observer.load(outpoint) for outpoint in (second, bytes(36), first, first)]
            expiring = await observer.call(StoreMessage.SCAN_EXPIRING, Scan(10, 600_000_001).encode())
            assert decode_found(expiring) == [(600_000_000, first)]
            unfinished = await observer.call(StoreMessage.SCAN_UNFINISHED, Scan(10).encode())
            assert decode_found(unfinished) == [(Phase.CLOSING, second)]
            assert observer.number == 0
            with pytest.raises(RemoteRefusal, match="observer"):
                await observer.call(StoreMessage.COMMIT, encode_commit([]))
            await asyncio.wait_for(observer.closed.wait(), WAIT_S)
            assert observer.owners is None

    store.start()
    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("hello", "why"),
    [
        (Hello("live", PUBKEY, "w"), "network test"),
        (Hello("test", b"\3" * 33, "w"), "another server key"),
        (None, "HELLO comes first"),
    ],
)
def test_a_stranger_is_told_why_and_cut_off(store, hello, why):
    async def scenario() -> None:
        stranger = Worker()
        address = Address.parse("unix:run/store.sock", store.directory / "state")
        stranger.connection = await connect(
            address, lambda: FrameConnection(PAYLOAD_MAX, stranger.on_frame, lambda _: stranger.closed.set())
        )
        with pytest.raises(RemoteRefusal, match=why):
            if hello is None:
                await stranger.call(StoreMessage.HEARTBEAT)
            else:
                await stranger.call(StoreMessage.HELLO, hello.encode())
        await asyncio.wait_for(stranger.closed.wait(), WAIT_S)

    store.start()
    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (StoreMessage.COMMIT, b"\1"),
        (StoreMessage.LOAD, b"x"),
        (StoreMessage.SCAN_EXPIRING, b""),
        (StoreMessage.HELLO, b""),
        (99, b""),
    ],
)
def test_a_malformed_frame_is_refused_and_closes_the_connection(store, kind, payload):
    async def scenario() -> None:
        async with worker(store) as bad:
            with pytest.raises(RemoteRefusal):
                await bad.call(kind, payload)
            await asyncio.wait_for(bad.closed.wait(), WAIT_S)
        async with worker(store) as good:
            await good.owns(SHARDS)

    store.start()
    asyncio.run(scenario())


def test_a_second_store_on_the_directory_exits_with_2(store):
    store.start()
    status, complaint = store.run_to_end()
    assert status == 2
    assert "another paychan-store uses this directory" in complaint.splitlines()[-1]


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"network": '"live"'}, "network"),
        ({"server_pubkey": f'"{"03" * 33}"'}, "store.server_pubkey"),
        ({"shard_count": "9"}, "store.shard_count"),
    ],
)
def test_a_store_of_another_identity_exits_with_2_and_names_the_key(store, changed, key):
    store.start()
    assert store.kill(signal.SIGTERM) == 0
    store.configure(**changed)
    status, complaint = store.run_to_end()
    assert status == 2
    assert complaint.splitlines()[-1].startswith(f"paychan-store: {store.file}: {key}: ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_store_cleanly_and_it_starts_again(store, number):
    store.start()
    assert store.kill(number) == 0
    store.start()


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["check"], ["check", "a", "b"], ["restore", "a"]])
def test_a_wrong_call_prints_the_usage(arguments):
    command = [sys.executable, "-m", "store", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 2
    assert re.match(r"usage: paychan-store (FILE|check \[-h\] DIR|restore \[-h\] FILE DIR)\n", done.stderr)


def test_what_is_closed_at_the_start_is_not_the_next_file_s_place(store):
    """Else a library's complaint on descriptor 2 would be written into the database."""
    process = subprocess.Popen(
        [sys.executable, "-m", "store", str(store.file)], cwd=ROOT, preexec_fn=lambda: [os.close(number) for number in range(3)]
    )
    try:
        wait_until((store.directory / "state" / "run" / "store.sock").exists, WAIT_S, "the store's socket")
        assert [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)] == ["/dev/null"] * 3
    finally:
        process.terminate()
        assert process.wait(WAIT_S) == 0


def test_a_sighup_while_the_store_waits_for_the_key_does_not_end_it(store):
    """There is no event loop yet."""
    store.configure(server_pubkey=f'"" # {PUBKEY.hex()}')
    process = subprocess.Popen([sys.executable, "-m", "store", str(store.file)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        wait_until((store.directory / "state" / "store" / "lock").exists, WAIT_S, "the store's lock")
        process.send_signal(signal.SIGHUP)
        assert "SIGHUP: this process reads its configuration when it starts" in process.stderr.readline()
        (store.directory / "state" / "signer.pub").write_text(PUBKEY.hex())
        assert "ready at" in process.stderr.readline()
    finally:
        process.terminate()
        process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
