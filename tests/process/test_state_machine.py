"""Aim: the server does what a model of a few lines does, whatever payers send in whatever order, and while its processes are
restarted. Method: Hypothesis drives one real system with two workers; each example has channels of its own.

PAYCHAN_STEPS: about how many steps to run (default 240; the campaign is 10000). Requests are repeated until they are answered;
where an attempt's answer was lost, the model allows what the first attempt may have done.
"""

import os
import random
import secrets
import signal
import threading
import time
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from paychan.core.payment import Payment
from paychan.core.sender import Sender, sign_payment
from paychan.core.settlement import check_settlement
from tests.campaign.faults import kill_when_there
from tests.campaign.load import PatientClient, is_outpoint_of
from tests.settled import FEE_MAX
from tests.system import Answer, System, running
from tests.tiling import History, Operation, Outcome, check

STEPS = int(os.environ.get("PAYCHAN_STEPS", "240"))
STEPS_PER_EXAMPLE = 40
STEPS_PER_RESTART = 20
SECONDS_BETWEEN_RESTARTS = 0.5
OPEN_PRICE = 70_000 + 331 * 40
CONNECTIONS = 4

_run: dict[str, object] = {}


@dataclass
class Model:
    """One channel as it should be. `left` is -1 before it is open; `txid` is set once it is closed."""

    sender: Sender
    left: int = -1
    newest: Payment | None = None
    older: list[Payment] = field(default_factory=list)
    txid: str = ""

    @property
    def is_open(self) -> bool:
        return self.left >= 0 and not self.txid

    def accept(self, payment: Payment) -> None:
        if self.newest is not None:
            self.older.append(self.newest)
        self.newest, self.left = payment, payment.change_value


class Channels(RuleBasedStateMachine):
    """Rules: what payers and fate do. Each checks status and values against the model."""

    indices = st.integers(0, 30)
    amounts = st.sampled_from([1, 2, 99, 1_000, 12_345_678])

    @initialize()
    def begin(self) -> None:
        self.models: list[Model] = []
        self.open_channel(OPEN_PRICE)

    # helpers

    @property
    def system(self) -> System:
        return _run["system"]

    @property
    def clients(self) -> list[PatientClient]:
        return _run["clients"]

    def ask(self, method: str, target: str, connection: int = 0) -> tuple[Answer, int]:
        return self.clients[connection % CONNECTIONS].until_answered(method, target)

    def pick(self, index: int, is_open: bool = True) -> Model:
        fitting = [model for model in self.models if model.is_open == is_open]
        return fitting[index % len(fitting)]

    def sign(self, model: Model, left: int) -> Payment:
        return sign_payment(model.sender.terms, left, model.sender.key)

    def put(self, model: Model, payment: Payment, connection: int = 0) -> tuple[Answer, int]:
        return self.ask("PUT", model.sender.channel_target(payment), connection)

    def check_received(self, answer: Answer, lost: int, status: int, left: int, received: int) -> None:
        assert answer.status == status, answer
        body = answer.json
        assert body["channel_value_left"] == left, answer
        assert body["value_received"] == received or (lost and body["value_received"] == 0), (answer, received, lost)

    def has_open(self) -> bool:
        return any(model.is_open for model in self.models)

    def has_closed(self) -> bool:
        return any(model.txid for model in self.models)

    # opening

    @rule(amount=st.sampled_from([OPEN_PRICE, OPEN_PRICE + 1, 1_000_000]))
    def open_channel(self, amount: int) -> None:
        _run["names"] += 1
        model = Model(self.system.payer(f"{_run['prefix']}-{_run['names']}").sender)
        payment = self.sign(model, model.sender.terms.funding_value - amount)
        answer, lost = self.ask("POST", model.sender.open_target(payment))
        if not (lost and answer.code == "channel_exists"):
            self.check_received(answer, lost, 201, payment.change_value, amount)
            assert answer.headers["location"].split("?")[0].endswith(model.sender.channel_target(payment).split("?")[0])
        model.accept(payment)
        self.models.append(model)

    @rule(short_by=st.integers(1, OPEN_PRICE))
    def open_too_cheaply(self, short_by: int) -> None:
        _run["names"] += 1
        model = Model(self.system.payer(f"{_run['prefix']}-{_run['names']}").sender)
        payment = self.sign(model, model.sender.terms.funding_value - OPEN_PRICE + short_by)
        answer, _ = self.ask("POST", model.sender.open_target(payment))
        assert (answer.status, answer.code) == (400, "open_price_short")
        answer, _ = self.put(model, payment)
        assert (answer.status, answer.code) == (404, "no_such_channel")

    @precondition(has_open)
    @rule(index=indices)
    def open_again(self, index: int) -> None:
        model = self.pick(index)
        answer, _ = self.ask("POST", model.sender.open_target(self.sign(model, 1_000_000)))
        assert (answer.status, answer.code) == (409, "channel_exists")

    @precondition(has_closed)
    @rule(index=indices)
    def open_a_closed_one(self, index: int) -> None:
        model = self.pick(index, is_open=False)
        answer, _ = self.ask("POST", model.sender.open_target(model.newest))
        assert (answer.status, answer.code) in ((409, "channel_settled"), (409, "channel_exists"))

    # paying

    @precondition(has_open)
    @rule(index=indices, amount=amounts, connection=indices)
    def pay(self, index: int, amount: int, connection: int) -> None:
        model = self.pick(index)
        payment = self.sign(model, model.left - amount)
        answer, lost = self.put(model, payment, connection)
        self.check_received(answer, lost, 200, payment.change_value, amount)
        assert answer.json["channel_status"] == "open" and answer.json["settlement_txid"] is None
        model.accept(payment)

    @precondition(has_open)
    @rule(index=indices, connection=indices)
    def replay(self, index: int, connection: int) -> None:
        model = self.pick(index)
        answer, lost = self.put(model, model.newest, connection)
        self.check_received(answer, lost, 200, model.left, 0)

    @precondition(has_open)
    @rule(index=indices, which=indices, connection=indices)
    def send_an_older_payment(self, index: int, which: int, connection: int) -> None:
        model = self.pick(index)
        if model.older:
            older = model.older[which % len(model.older)]
            answer, _ = self.put(model, older, connection)
            assert (answer.status, answer.code) == (400, "out_of_order")
            assert str(older.change_value - model.left) in answer.json["detail"]

    @precondition(has_open)
    @rule(index=indices, amounts=st.lists(amounts, min_size=2, max_size=4))
    def skip_ahead(self, index: int, amounts: list[int]) -> None:
        model = self.pick(index)
        signed, left = [], model.left
        for amount in amounts:
            left -= amount
            signed.append(self.sign(model, left))
        answer, lost = self.put(model, signed[-1])
        self.check_received(answer, lost, 200, left, sum(amounts))
        model.accept(signed[-1])
        for skipped in signed[:-1]:
            answer, _ = self.put(model, skipped)
            assert (answer.status, answer.code) == (400, "out_of_order")

    @precondition(has_open)
    @rule(index=indices, amount=amounts)
    def send_a_strangers_signature(self, index: int, amount: int) -> None:
        model = self.pick(index)
        signature = model.newest.signature
        answer, _ = self.put(model, Payment(model.left - amount, signature, model.newest.sighash_type))
        assert (answer.status, answer.code) == (400, "bad_signature")

    # at the same time

    def together(self, model: Model, payments: list[Payment]) -> list[Operation]:
        """Send payments at the same time, each over a connection of its own; return what was seen."""
        results: list[Operation | BaseException] = [Operation(0, Outcome.UNKNOWN)] * len(payments)
        start = threading.Barrier(len(payments))

        def send(i: int) -> None:
            try:
                start.wait(10)
                answer, lost = self.put(model, payments[i], i)
                left = payments[i].change_value
                if answer.status == 200:
                    body = answer.json
                    received, said = body["value_received"], body["channel_value_left"]
                    results[i] = Operation(left, Outcome.ACKNOWLEDGED, received, said, lost)
                else:
                    results[i] = Operation(left, Outcome.REFUSED, lost=lost, code=answer.code)
            except BaseException as error:
                results[i] = error

        threads = [threading.Thread(target=send, args=(i,)) for i in range(len(payments))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    @precondition(has_open)
    @rule(index=indices, amount=amounts, copies=st.integers(2, CONNECTIONS))
    def send_duplicates_together(self, index: int, amount: int, copies: int) -> None:
        model = self.pick(index)
        payment = self.sign(model, model.left - amount)
        seen = self.together(model, [payment] * copies)
        assert all(operation.outcome is Outcome.ACKNOWLEDGED for operation in seen), seen
        received = sorted(operation.received for operation in seen)
        lost = any(operation.lost for operation in seen)
        assert received == [0] * (copies - 1) + [amount] or (lost and received == [0] * copies), seen
        assert check(History("duplicates", model.left, seen, payment.change_value)).problems == []
        model.accept(payment)

    @precondition(has_open)
    @rule(index=indices, amounts=st.lists(amounts, min_size=2, max_size=CONNECTIONS), shuffle=st.randoms(use_true_random=False))
    def pay_together(self, index: int, amounts: list[int], shuffle) -> None:
        model = self.pick(index)
        signed, left = [], model.left
        for amount in amounts:
            left -= amount
            signed.append(self.sign(model, left))
        lowest = signed[-1]
        shuffle.shuffle(signed)
        seen = self.together(model, signed)
        codes = {operation.code for operation in seen if operation.outcome is Outcome.REFUSED}
        assert codes <= {"out_of_order"}, seen
        assert check(History("together", model.left, seen, left)).problems == []
        model.accept(lowest)

    # closing

    def closed(self, model: Model, answer: Answer, left: int) -> None:
        """Note a close that was answered 202, and check what was broadcast."""
        assert answer.status == 202 and answer.json["channel_status"] == "closed", answer
        assert answer.json["channel_value_left"] == left
        model.txid = answer.json["settlement_txid"]
        raw = bytes.fromhex((self.system.state_dir / "broadcast" / f"{model.txid}.hex").read_text())
        assert is_outpoint_of(raw, model.sender.terms.outpoint)
        check_settlement(raw, model.sender.terms, model.newest, FEE_MAX)

    @precondition(has_open)
    @rule(index=indices, connection=indices)
    def close(self, index: int, connection: int) -> None:
        model = self.pick(index)
        answer, _ = self.ask("DELETE", model.sender.channel_target(model.newest), connection)
        self.closed(model, answer, model.left)

    @precondition(has_open)
    @rule(index=indices, which=indices)
    def close_with_an_older_payment(self, index: int, which: int) -> None:
        model = self.pick(index)
        if model.older:
            answer, _ = self.ask("DELETE", model.sender.channel_target(model.older[which % len(model.older)]))
            assert (answer.status, answer.code) == (400, "not_newest_payment")

    @precondition(has_open)
    @rule(index=indices)
    def exhaust(self, index: int) -> None:
        model = self.pick(index)
        before, payment = model.left, self.sign(model, 0)
        answer, lost = self.put(model, payment)
        model.accept(payment)
        if answer.status in (404, 410) and lost:  # an attempt whose answer was lost had closed it
            answer, _ = self.ask("DELETE", model.sender.channel_target(payment))
            assert answer.status == 202
        else:
            self.check_received(answer, lost, 202, 0, before)
        self.closed(model, answer, 0)

    @precondition(has_closed)
    @rule(index=indices, amount=amounts, connection=indices)
    def pay_after_close(self, index: int, amount: int, connection: int) -> None:
        model = self.pick(index, is_open=False)
        payment = self.sign(model, max(0, model.left - amount))
        for attempt in (payment, model.newest):
            answer, _ = self.put(model, attempt, connection)
            assert (answer.status, answer.code) in ((404, "no_such_payment"), (410, "channel_closing"))

    @precondition(has_closed)
    @rule(index=indices)
    def close_again(self, index: int) -> None:
        model = self.pick(index, is_open=False)
        answer, _ = self.ask("DELETE", model.sender.channel_target(model.newest))
        assert (answer.status, answer.json["settlement_txid"]) == (202, model.txid)

    # fate

    @rule(
        victim=st.sampled_from(["signer", "store", "server", "worker"]),
        number=st.sampled_from([signal.SIGTERM, signal.SIGKILL]),
    )
    def restart(self, victim: str, number: signal.Signals) -> None:
        """Have a process end; its keeper starts it again. Thinned out: a restart costs a hundred steps' time."""
        is_due = _run["steps"] >= (_run["restarts"] + 1) * STEPS_PER_RESTART
        if is_due and time.monotonic() - _run["restarted_at"] > SECONDS_BETWEEN_RESTARTS:
            _run["restarts"] += 1
            _run["restarted_at"] = time.monotonic()
            if victim == "worker":
                kill_when_there(self.system, victim, _run["rng"])
            else:
                self.system.kill(victim, number)

    @invariant()
    def count(self) -> None:
        _run["steps"] += 1

    def teardown(self) -> None:
        if hasattr(self, "models"):
            for model in self.models:
                if model.is_open:
                    answer, _ = self.ask("DELETE", model.sender.channel_target(model.newest))
                    self.closed(model, answer, model.left)


@pytest.fixture
def system(tmp_path):
    with running(tmp_path, workers=2) as system:
        _run.update(
            system=system,
            clients=[PatientClient(system.port) for _ in range(CONNECTIONS)],
            prefix=secrets.token_hex(4),
            names=0,
            steps=0,
            restarts=0,
            restarted_at=0.0,
            rng=random.Random(1),
        )
        yield system
        _run.clear()


def test_the_server_does_what_the_model_does(system):
    # Examples are not shrunk: each runs against the same system, whose state a shorter one would not find again.
    example = settings(
        max_examples=max(1, STEPS // STEPS_PER_EXAMPLE),
        stateful_step_count=STEPS_PER_EXAMPLE,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    while _run["steps"] < STEPS:
        run_state_machine_as_test(Channels, settings=example)
    print(f"{_run['steps']} steps, {_run['names']} channels, {_run['restarts']} restarts")
