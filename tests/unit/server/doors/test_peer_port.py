"""Aim: workers of two machines talk over TLS 1.3 with certificates of one authority, and nobody else gets a byte. Method: the
shipped Peers of two machines on two loopback addresses, on event loops of both kinds; strangers with OpenSSL's own client."""

import asyncio
import contextlib
import gc
import logging
import random
import socket
import ssl
import struct
from dataclasses import replace

import pytest
import uvloop

from paychan._fast.frame import encode_frame
from paychan._fast.tally import PASSED_ON
from paychan.core.errors import Unavailable
from paychan.rpc.peer_address import PeerAddress, machine_of
from paychan.rpc.peer_tls import make_contexts
from paychan.server.doors import peer_port
from paychan.server.doors.peers import AWAY_SECONDS, PAYLOAD_MAX, PeerRequest, Peers
from paychan.server.protocol.replies import Reply
from paychan.settings.models import ClusterConfig
from tests.certificates import ALPHA, BETA, EXPIRED, USUAL, files_of, make, sign
from tests.ports import free_port

FLOODING = "127.0.0.3"
REQUEST = PeerRequest("close", bytes(range(36)), "/v1/channels/x", "payment=y")
ANSWER = Reply(202, b'{"channel_status":"closed"}\n', "http://127.0.0.2:8001/v1/channels/x")
RELAYED = ANSWER._replace(outcome=PASSED_ON)  # it was counted where it was made
GREETING = b"paychan-peer" + struct.pack("<I", peer_port.VERSION)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request):
    def runner(scenario):
        wrong = []
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if request.param == "uvloop" else None) as loop:
            loop.get_loop().set_exception_handler(lambda _, context: wrong.append(context))
            loop.run(asyncio.wait_for(scenario, 60))
        gc.collect()
        assert not wrong

    return runner


def config_of(certificates, host, **changes) -> ClusterConfig:
    machine = "alpha" if host == ALPHA else "beta"
    return replace(ClusterConfig(machine, host, free_port(), host, files_of(certificates, host), 0), **changes)


class Machine:
    """A machine's one worker; `asked` are the requests that came to it."""

    def __init__(self, directory, config):
        self.asked = []
        self.peers = Peers(directory / (config.machine if config else "none"), self._answer, lambda: None, lambda *_: None, config)

    async def _answer(self, request):
        self.asked.append(request)
        return ANSWER

    @property
    def place(self):
        return (self.peers._cluster.peer_host, self.peers._port.port)


@contextlib.asynccontextmanager
async def two(tmp_path, certificates, other=None, **changes):
    """Run alpha, and beta with `other` certificates."""
    alpha = Machine(tmp_path, config_of(certificates, ALPHA))
    beta = Machine(tmp_path, config_of(other or certificates, BETA, **changes))
    await alpha.peers.start()
    await beta.peers.start()
    try:
        yield alpha, beta
    finally:
        await alpha.peers.stop()
        await beta.peers.stop()


async def ask(one, other):
    return await one.peers.forward(str(other.peers.address), REQUEST)


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_request_and_its_answer_cross_machines_as_they_are(run, tmp_path, certificates):
    async def scenario():
        async with two(tmp_path, certificates) as (alpha, beta):
            assert str(beta.peers.address).startswith(f"tls:{BETA}:")
            assert await ask(alpha, beta) == RELAYED
            assert beta.asked == [REQUEST]
            assert await ask(beta, alpha) == RELAYED

    run(scenario())


def test_ipv6_is_an_address_as_any_other(run, tmp_path):
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    made = make(tmp_path / "six", ALPHA, "::1")

    async def scenario():
        alpha, beta = Machine(tmp_path, config_of(made, ALPHA)), Machine(tmp_path, config_of(made, "::1"))
        await alpha.peers.start()
        await beta.peers.start()
        assert str(beta.peers.address).startswith("tls:[::1]:")
        assert await ask(alpha, beta) == RELAYED
        await alpha.peers.stop()
        await beta.peers.stop()

    run(scenario())


def test_workers_of_one_machine_keep_to_their_unix_socket(run, tmp_path, certificates):
    """The port in the address is nobody's: who took it would fail."""

    async def scenario():
        async with two(tmp_path, certificates) as (alpha, _):
            same = Machine(tmp_path, config_of(certificates, ALPHA))
            await same.peers.start()
            address = replace(same.peers.address, port=1)
            assert await alpha.peers.forward(str(address), REQUEST) == RELAYED
            assert len(same.asked) == 1
            await same.peers.stop()

    run(scenario())


def test_without_a_cluster_the_address_is_the_sockets_path_and_another_machines_is_away(run, tmp_path, certificates, caplog):
    async def scenario():
        async with two(tmp_path, certificates) as (alpha, _):
            alone = Machine(tmp_path, None)
            await alone.peers.start()
            assert str(alone.peers.address) == alone.peers.address.path
            assert await ask(alone, alpha) is None
            assert await ask(alone, alone) == RELAYED
            await alone.peers.stop()

    run(scenario())
    assert len(lines(caplog)) == 1 and "no [cluster] here" in lines(caplog)[0]


# --- certificates that do not do ---


def _of_another_authority(directory):
    return make(directory)


def _expired(directory):
    sign(make(directory), BETA, USUAL, begins_and_ends=EXPIRED)


def _of_another_host(directory):
    sign(make(directory), BETA, USUAL, names="IP:127.0.0.9")


def _for_clients_only(directory):
    sign(make(directory), BETA, ("basicConstraints = critical, CA:FALSE", "extendedKeyUsage = clientAuth"))


def _for_servers_only(directory):
    sign(make(directory), BETA, ("basicConstraints = critical, CA:FALSE", "extendedKeyUsage = serverAuth"))


@pytest.mark.parametrize(
    ("spoil", "answers", "asks", "why"),
    [
        (_expired, False, False, "certificate has expired"),
        (_of_another_host, False, True, "mismatch"),
        (_for_clients_only, False, True, "certificate"),
        (_for_servers_only, True, False, "certificate"),
    ],
)
def test_a_certificate_that_is_no_good_is_refused_and_logged_once(run, tmp_path, caplog, spoil, answers, asks, why):
    """answers: whether beta is believed when alpha connects to it; asks: when it connects to alpha."""
    directory = tmp_path / "cluster"
    spoil(directory)

    async def scenario():
        async with two(tmp_path, directory) as (alpha, beta):
            for _ in range(3):
                assert (await ask(alpha, beta) is not None) is answers
                assert (await ask(beta, alpha) is not None) is asks
                await asyncio.sleep(AWAY_SECONDS * 1.1)
            assert (beta.asked == []) is not answers
            assert (alpha.asked == []) is not asks

    run(scenario())
    of_alpha = [line for line in lines(caplog) if why in line]
    assert of_alpha and len(set(lines(caplog))) == len(lines(caplog)), lines(caplog)


def test_two_authorities_do_not_know_each_other(run, tmp_path, certificates, caplog):
    other = make(tmp_path / "other")

    async def scenario():
        async with two(tmp_path, certificates, other) as (alpha, beta):
            assert await ask(alpha, beta) is None
            assert await ask(beta, alpha) is None
            assert alpha.asked == beta.asked == []

    run(scenario())
    assert any("self-signed certificate" in line or "unable to get local issuer" in line for line in lines(caplog))
    assert "PRIVATE" not in caplog.text and "BEGIN" not in caplog.text


# --- strangers ---


async def stranger(place, context, data=GREETING):
    """Connect with a context of the test's, say something, and return what comes."""
    try:
        reader, writer = await asyncio.open_connection(*place, ssl=context)
        writer.write(data)
        return await asyncio.wait_for(reader.read(1000), 20)
    except TimeoutError:
        raise AssertionError("it is not turned away") from None
    except OSError:
        return b""


def _without_certificate(certificates):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(files_of(certificates, ALPHA).ca)
    return context


def _old_version(certificates):
    context = make_contexts(files_of(certificates, BETA)).client
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def _plain_text(_):
    return None


@pytest.mark.parametrize(
    ("context", "why"),
    [
        (_without_certificate, "peer did not return a certificate"),
        (_old_version, "unsupported protocol"),
        (_plain_text, ""),
    ],
)
def test_nothing_is_answered_to_a_stranger_and_it_is_logged_once(run, tmp_path, certificates, caplog, context, why):
    async def scenario():
        async with two(tmp_path, certificates) as (alpha, _):
            for _ in range(3):
                assert GREETING not in await stranger(alpha.place, context(certificates))
            assert alpha.asked == [] and not alpha.peers._incoming

    run(scenario())
    assert len(lines(caplog)) == 1 and why in lines(caplog)[0], lines(caplog)


def test_the_strangers_client_is_answered_when_it_has_a_certificate(run, tmp_path, certificates):
    """So what the test before sees is not the client's fault."""

    async def scenario():
        async with two(tmp_path, certificates) as (alpha, _):
            assert await stranger(alpha.place, make_contexts(files_of(certificates, BETA)).client, GREETING) == GREETING

    run(scenario())


@pytest.mark.parametrize(
    "data",
    [b"PUT /v1/channels HTTP/1.1\r\n\r\n", bytes(16), GREETING + b"\x00", GREETING[:-1] + b"\x01", GREETING * 3, b"x" * 65536],
    ids=["http", "zeros", "more than a greeting", "another version", "three greetings", "much"],
)
def test_a_peer_that_does_not_greet_as_one_is_not_listened_to(run, tmp_path, certificates, data):
    async def scenario():
        async with two(tmp_path, certificates) as (alpha, beta):
            context = make_contexts(files_of(certificates, BETA)).client
            answer = await stranger(alpha.place, context, data)
            assert answer in (b"", GREETING) and not alpha.peers._incoming
            assert await ask(beta, alpha) == RELAYED

    run(scenario())


# --- versions ---


def test_another_version_is_as_good_as_away_until_both_are_new(run, tmp_path, certificates, caplog, monkeypatch):
    async def scenario():
        async with two(tmp_path, certificates) as (alpha, beta):
            greeter_of_beta = peer_port.Greeter._greet
            monkeypatch.setattr(peer_port.Greeter, "_greet", lambda self: self._transport.write(GREETING[:-4] + b"\x09\0\0\0"))
            assert await ask(alpha, beta) is None
            assert beta.asked == [] and alpha.peers.is_lost(str(beta.peers.address))
            monkeypatch.setattr(peer_port.Greeter, "_greet", greeter_of_beta)
            await asyncio.sleep(AWAY_SECONDS * 1.1)
            assert await ask(alpha, beta) == RELAYED

    run(scenario())
    assert any("version 9" in line for line in lines(caplog))


# --- bounds ---


def test_who_hangs_in_the_handshake_is_dropped_and_who_floods_is_turned_away(run, tmp_path, certificates, caplog, monkeypatch):
    monkeypatch.setattr(peer_port, "HANDSHAKE_SECONDS_MAX", 1.0)

    async def scenario():
        async with two(tmp_path, certificates) as (alpha, beta):
            loop, silent = asyncio.get_running_loop(), []
            for _ in range(peer_port.ARRIVING_PER_HOST_MAX + 5):
                sock = socket.socket()
                sock.setblocking(False)
                sock.bind((FLOODING, 0))
                await loop.sock_connect(sock, alpha.place)
                silent.append(sock)
            assert await loop.sock_recv(silent[-1], 1) == b""  # turned away at once
            assert alpha.peers._port._arriving[FLOODING] == peer_port.ARRIVING_PER_HOST_MAX
            assert await ask(beta, alpha) is not None, "another machine is kept out"
            for sock in silent:  # the others, once the handshake has taken too long
                with contextlib.suppress(OSError):
                    assert await loop.sock_recv(sock, 1) == b""
                sock.close()
            while alpha.peers._port._arriving:
                await asyncio.sleep(0.01)

    run(scenario())
    assert any("too many connections" in line for line in lines(caplog))


def test_so_many_handshakes_in_a_second_cost_no_more_than_they_may(run, tmp_path, certificates, monkeypatch):
    """Each ends at once, so few are there at a time."""
    monkeypatch.setattr(peer_port, "ARRIVING_PER_HOST_MAX", 8)
    monkeypatch.setattr(peer_port, "PLACE_SECONDS_MIN", 3.0)

    async def scenario():
        async with two(tmp_path, certificates) as (alpha, beta):
            tried = []
            usual = alpha.peers._port._admit

            async def admit(*where):
                tried.append(where)
                await usual(*where)

            alpha.peers._port._admit = admit
            for _ in range(20):
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(*alpha.place, local_addr=(FLOODING, 0))
                    writer.close()
                    await writer.wait_closed()
            assert await ask(beta, alpha) == RELAYED
            assert [host for _, host in tried].count(FLOODING) == 8
            while alpha.peers._port._arriving:
                await asyncio.sleep(0.05)
            assert await ask(beta, alpha) == RELAYED

    run(scenario())


def test_one_that_never_greets_is_dropped(run, tmp_path, certificates, monkeypatch):
    monkeypatch.setattr(peer_port, "HANDSHAKE_SECONDS_MAX", 0.5)

    async def scenario():
        async with two(tmp_path, certificates) as (alpha, _):
            context = make_contexts(files_of(certificates, BETA)).client
            assert await stranger(alpha.place, context, GREETING[:5]) == b""
            assert not alpha.peers._incoming
            while alpha.peers._port._arriving:
                await asyncio.sleep(0.01)

    run(scenario())


def test_a_peer_that_does_not_answer_the_handshake_is_away_for_a_moment_only(run, tmp_path, certificates, monkeypatch):
    monkeypatch.setattr(peer_port, "HANDSHAKE_SECONDS_MAX", 0.3)

    async def scenario():
        async with two(tmp_path, certificates) as (alpha, beta):
            with socket.socket() as deaf:
                deaf.bind((BETA, 0))
                deaf.listen()
                port, real = deaf.getsockname()[1], beta.peers.address.port
                address = str(replace(beta.peers.address, port=port))
                assert await alpha.peers.forward(address, REQUEST) is None
                begun = asyncio.get_running_loop().time()
                assert await alpha.peers.forward(address, REQUEST) is None  # not tried again yet
                assert asyncio.get_running_loop().time() - begun < 0.3
                assert alpha.peers.is_lost(address)
            assert await alpha.peers.forward(str(replace(beta.peers.address, port=real)), REQUEST) == RELAYED

    run(scenario())


def test_a_lost_peer_is_tried_again_without_anybody_waiting(run, tmp_path, certificates, monkeypatch):
    monkeypatch.setattr(peer_port, "HANDSHAKE_SECONDS_MAX", 0.3)

    async def scenario():
        async with two(tmp_path, certificates) as (alpha, beta):
            address, accept = str(beta.peers.address), peer_port.PeerPort._admit

            async def keep_waiting(_, sock, host):
                with sock:
                    await asyncio.sleep(1)

            monkeypatch.setattr(peer_port.PeerPort, "_admit", keep_waiting)
            assert await ask(alpha, beta) is None and alpha.peers.is_lost(address)
            monkeypatch.setattr(peer_port.PeerPort, "_admit", accept)
            while alpha.peers.is_lost(address):
                await asyncio.sleep(0.02)
            assert await ask(alpha, beta) == RELAYED

    run(scenario())


def test_a_peer_that_refuses_connections_is_not_lost(run, tmp_path, certificates):
    """It ends, or is being replaced: in a moment the owner table names another."""

    async def scenario():
        async with two(tmp_path, certificates) as (alpha, beta):
            address = str(replace(beta.peers.address, port=free_port()))
            assert await alpha.peers.forward(address, REQUEST) is None
            assert not alpha.peers.is_lost(address) and not alpha.peers.is_lost(str(beta.peers.address))

    run(scenario())


def test_a_peer_that_cuts_leaves_the_outcome_unknown_and_is_reached_again(run, tmp_path, certificates):
    """What it took and did not answer is not sent again from here."""

    async def scenario():
        async with two(tmp_path, certificates) as (alpha, beta):
            assert await ask(alpha, beta) == RELAYED
            answer, stuck = beta.peers._answer, asyncio.Event()

            async def never(_):
                stuck.set()
                await asyncio.Event().wait()

            beta.peers._answer = never
            asked = asyncio.ensure_future(ask(alpha, beta))
            await stuck.wait()
            for end in list(beta.peers._incoming):
                end.close()
            with pytest.raises(Unavailable) as caught:
                await asked
            assert caught.value.code == "owner_moved"
            beta.peers._answer = answer
            assert await ask(alpha, beta) == RELAYED

    run(scenario())


@pytest.mark.parametrize("seed", range(3))
def test_hostile_bytes_end_their_connection_and_nothing_else(run, tmp_path, certificates, seed):
    """To the port in plain, within TLS before the greeting, and as frames behind a good one."""
    rng = random.Random(seed)

    async def throw(place, stage):
        context = make_contexts(files_of(certificates, BETA)).client if stage else None
        noise = rng.randbytes(rng.choice((1, 15, 16, 17, 500, 70_000)))
        noise = rng.choice((noise, b"\x16\x03\x01" + noise, b"\xff" * len(noise), noise[:1]))
        try:
            reader, writer = await asyncio.open_connection(*place, ssl=context)
            if stage == 2:
                writer.write(GREETING)
                assert await reader.readexactly(16) == GREETING
                frame = rng.choice((encode_frame(rng.randrange(128), 1, noise[:1000]), noise, b"\xff\xff\xff\x7f" + noise))
                noise = frame
            writer.write(noise)
            with contextlib.suppress(OSError):
                writer.write_eof() if not stage else None
            if rng.random() < 0.5:
                await asyncio.sleep(0)
                writer.transport.abort()
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(100), 0.2)
                writer.close()
        except OSError:
            pass

    async def scenario():
        async with two(tmp_path, certificates) as (alpha, beta):
            for turn in range(24):
                await throw(alpha.place, turn % 3)
            assert await ask(beta, alpha) == RELAYED
            assert alpha.asked == [REQUEST]

    run(scenario())


def test_frames_behind_a_greeting_are_bounded_as_on_a_unix_socket(run, tmp_path, certificates):
    async def scenario():
        async with two(tmp_path, certificates) as (alpha, _):
            context = make_contexts(files_of(certificates, BETA)).client
            reader, writer = await asyncio.open_connection(*alpha.place, ssl=context)
            writer.write(GREETING)
            assert await reader.readexactly(16) == GREETING
            assert len(alpha.peers._incoming) == 1
            writer.write(struct.pack("<I", PAYLOAD_MAX + 100) + bytes(100))
            assert await asyncio.wait_for(reader.read(1), 20) == b""
            while alpha.peers._incoming:
                await asyncio.sleep(0.01)
            writer.close()

    run(scenario())


# --- addresses ---


@pytest.mark.parametrize("host", ["10.0.0.1", "fd00::1", "alpha.example"])
def test_an_address_is_read_as_it_was_written(host):
    address = PeerAddress("/a path/worker 1.sock", "alpha", host, 8300)
    assert PeerAddress.parse(str(address)) == address
    assert PeerAddress.parse("/run/worker.sock") == PeerAddress("/run/worker.sock")
    assert (machine_of(str(address)), machine_of("/run/worker.sock")) == ("alpha", "")


@pytest.mark.parametrize(
    "text", ["tls:", "tls:h:0 m /p", "tls:h:65536 m /p", "tls:h:1 m p", "tls:h:1  /p", "tls:h:1 m! /p", "tls:h:1 m"]
)
def test_an_address_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="must be"):
        PeerAddress.parse(text)
    assert machine_of(text) is None
