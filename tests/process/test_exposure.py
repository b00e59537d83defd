"""Aim: while settlements stand still, what is unsettled is counted and bounded, payers' doors say so, and who wants to close may.
Method: a real system with low limits, whose settlements cannot be published; then the store dies, and then they can be."""

import json

from store.maintenance import audit
from tests.system import OPEN_AMOUNT, Client, Payer, System, running, wait_until

TOTAL, UNSETTLED, LARGE = 1_000_000, 1_500_000, 750_000
LIMITS = f"fee_per_byte = 40\n\n[exposure]\ntotal_value_max = {TOTAL}\nunsettled_value_max = {UNSETTLED}"


def limited(limits: str = LIMITS) -> dict:
    return {"server.toml": {"fee_per_byte = 40": limits}}


def opened(system: System, name: str, received: int) -> Payer:
    payer = system.payer(name)
    assert payer.open(received).status == 201
    return payer


def told(system: System) -> tuple[int, int]:
    """Return what /readyz says of all that is open, and of all that is unsettled."""
    exposure = system.client().request("GET", "/readyz").json["exposure"]
    assert (exposure["total_value_max"], exposure["unsettled_value_max"]) == (TOTAL, UNSETTLED)
    return exposure["open_value"], exposure["unsettled_value"]


def is_refused(answer) -> bool:
    return (answer.status, answer.code) == (503, "too_much_unsettled") and int(answer.headers["retry-after"]) > 0


def says_so(client: Client) -> bool:
    return is_refused(client.request("GET", "/readyz"))


def batch_code(system: System, payer: Payer) -> str:
    """Send the newest payment as a batch of one; return the code of its answer."""
    raw = payer.newest.serialize()
    answer = system.client().request("POST", "/v1/payments", body=payer.sender.terms.outpoint + bytes((len(raw),)) + raw)
    status, size = int.from_bytes(answer.body[:2], "little"), int.from_bytes(answer.body[2:4], "little")
    assert (answer.status, status, len(answer.body)) == (200, 503, 4 + size)
    return json.loads(answer.body[4:])["code"]


def test_what_is_unsettled_is_bounded_while_settlements_stand_still(tmp_path):
    with running(tmp_path, workers=2, changes=limited()) as system:
        blocked = system.state_dir / "broadcast"
        blocked.touch()  # a file where a directory belongs: nothing can be published
        small = [opened(system, f"small {number}", OPEN_AMOUNT) for number in range(2)]
        large = opened(system, "large", LARGE)
        wait_until(lambda: told(system) == (2 * OPEN_AMOUNT + LARGE, 2 * OPEN_AMOUNT + LARGE), 10, "the sums")
        assert small[0].pay(TOTAL - LARGE - 2 * OPEN_AMOUNT + 1).status == 200
        wait_until(lambda: large.resend().code == "channel_closing", 20, "the settling of the largest")
        wait_until(lambda: told(system) == (TOTAL + 1 - LARGE, TOTAL + 1), 10, "the sums")

        assert small[1].pay(UNSETTLED - TOTAL).status == 200  # open: 750 001, and 750 000 wait to be settled
        workers = [system.client(), *map(Client, system.own_ports())]
        wait_until(lambda: all(map(says_so, workers)), 20, "a stop")
        detail = system.client().request("GET", "/readyz").json["detail"]
        assert detail == f"{UNSETTLED + 1} satoshi are unsettled, {UNSETTLED} may be"
        system.kill("store")
        wait_until(lambda: system.child_pid("store"), 20, "another store, which knows it, too")
        for client in workers:
            target = small[0].sender.channel_target(small[0].newest)
            wait_until(lambda client=client, target=target: is_refused(client.request("PUT", target)), 20, "the same for payments")
        assert is_refused(system.payer("late").open())
        assert batch_code(system, small[1]) == "too_much_unsettled"

        wait_until(lambda: small[1].close().code == "chain_unavailable", 20, "a close that is begun, and held up by the file alone")
        blocked.unlink()
        for payer in (large, small[1]):
            wait_until(lambda payer=payer: payer.close().status == 202, 20, "a settlement")
        wait_until(lambda: not any(map(says_so, workers)), 20, "every worker to hear of it")
        assert small[0].resend().status == 200
        assert told(system) == (TOTAL - LARGE - OPEN_AMOUNT + 1,) * 2
        assert opened(system, "late", OPEN_AMOUNT).pay().status == 200
        system.stop()
        assert audit(system.store_place) == 0


def test_a_lowered_limit_settles_what_holds_more_at_the_next_start(tmp_path):
    """Nobody pays on the channels: the settler finds them."""
    with running(tmp_path, changes=limited("fee_per_byte = 40\n\n[exposure]\nchannel_value_max = 500000")) as system:
        below, above = opened(system, "below", OPEN_AMOUNT), opened(system, "above", 3 * OPEN_AMOUNT)
        assert below.resend().status == above.resend().status == 200
        system.stop()
        path = system.config_dir / "server.toml"
        path.write_text(path.read_text().replace("channel_value_max = 500000", f"channel_value_max = {2 * OPEN_AMOUNT}"))
        system.output.clear()
        system.start()
        wait_until(lambda: len(system.broadcast()) == 1, 20, "the settlement of the channel above the limit")
        above.client, below.client = system.client(), system.client()
        wait_until(lambda: above.resend().code == "no_such_payment", 20, "the end of that channel")
        assert below.resend().status == 200
