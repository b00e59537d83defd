"""How a request is bought (sans I/O): one state machine for every HTTP client. docs/PAYMENT_SCHEME.md has the wire's rules.

A purchase holds its channel from before it signs until it knows what became of the payment, or gives up; then the payment is
pending, and the next purchase presents it again before it signs any other.
"""

import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from ..client import ChannelBusy, ClientError, Refused
from ..client.errors import printable
from ..client.wire import parse_url
from ..core.errors import BY_CODE, Rejection
from ..mpp.challenge import CREDENTIAL_HEADER, Challenge, parse_challenges
from ..mpp.credential import read_payload
from ..mpp.problems import Problem, parse_problem
from ..mpp.receipt import HEADER as RECEIPT
from ..mpp.receipt import Receipt, parse_receipt
from ..mpp.snapshot import HEADER as SNAPSHOT
from ..mpp.snapshot import parse_snapshot
from ..mpp.sse import NeedVoucher
from ..mpp.text import format_channel_id
from .budget import Budget
from .errors import NotYetConfirmed, PurseBusy, TermsRefused
from .purse import Ask, Purse
from .receipts import keep_receipt
from .steps import Answer, Do, Flow, Try, Wait
from .terms import Terms, read_terms
from .turn import Turn, UsedUp
from .wallets import Wallet

ROUNDS_MAX = 8
"""Requests with credentials for one purchase, those not counted that are repeated because no answer came."""

CHALLENGES_MAX = 1000
EXPIRY_MARGIN = 5
_REPEATABLE = ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE")


@dataclass(frozen=True)
class Asked:
    """A request that may have to be paid. has_authorization: whether it has an Authorization header of its own."""

    method: str
    url: str
    has_authorization: bool = False

    @property
    def origin(self) -> str:
        """Scheme and authority. Raises TermsRefused for what is no http(s) URL."""
        parts = urlsplit(self.url)
        try:
            return parse_url(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}").origin
        except ValueError as error:
            raise TermsRefused(f"this URL cannot be paid for: {error}") from error

    @property
    def path(self) -> str:
        return urlsplit(self.url).path or "/"

    @property
    def what(self) -> str:
        """The request in the ledger: its query may hold secrets, and is left out."""
        return printable(f"{self.method} {self.path}")


class _Held:
    """A purchase's turn, if it has one. Whoever takes it puts it here, so that it is given back whatever happens."""

    def __init__(self) -> None:
        self.turn: Turn | None = None

    def release(self) -> None:
        if self.turn is not None:
            self.turn.release()
            self.turn = None


class Payer:
    """Buys requests out of a purse; adapters for HTTP clients drive it. Threads and tasks may share it.

    deadline: seconds for which an unknown outcome, a turn, or a confirmation is waited for.
    """

    def __init__(
        self,
        purse: Purse | str | os.PathLike[str],
        budget: Budget | None = None,
        ask: Ask | None = None,
        wallet: Wallet | None = None,
        deadline: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """purse: its directory, or a Purse that others use too. budget, ask, wallet: see Purse. Raises StateError, ConfigError."""
        self.purse = purse if isinstance(purse, Purse) else Purse(purse, budget, wallet, ask, clock)
        self._deadline, self._clock = deadline, clock
        self._challenges: dict[tuple[str, str, str], tuple[Challenge, int]] = {}
        """Of a route: the challenge that it may be answered with, and what a request cost there; satoshi."""
        self._mutex = threading.Lock()
        self._free: set[tuple[str, str, str]] = set()

    # --- a purchase ---

    def purchase(self, asked: Asked) -> Flow[Answer | None]:
        """Buy one request. Returns its last answer, None if none came. Raises ClientError where nothing more may be signed."""
        if asked.method == "HEAD":  # is management in this scheme: it buys nothing
            return (yield from self._try())
        challenge, cost = self._known(asked)
        is_guess = challenge is not None
        if challenge is None:
            answer = yield from self._try()
            challenge = self._challenge(asked, answer)
            if challenge is None:
                return answer
        held = _Held()
        try:
            answer = yield from self._buy(asked, challenge, cost, held)
            if is_guess and answer is not None and answer.status < 300 and not answer.all(RECEIPT.lower()):
                with self._mutex:
                    self._free = {*list(self._free)[-CHALLENGES_MAX:], (asked.origin, asked.method, asked.path)}
            return answer
        except TermsRefused:
            self._forget(asked.origin)
            raise
        finally:
            held.release()

    def _try(self) -> Flow[Answer | None]:
        """Send the request as it is."""
        answer: Answer | None = yield Try()
        return answer

    def _buy(self, asked: Asked, challenge: Challenge, cost: int, held: _Held) -> Flow[Answer | None]:
        answer: Answer | None = None
        endings, rounds, told = 0, 0, 0
        while rounds < ROUNDS_MAX:
            rounds += 1
            terms = self._terms(asked, challenge)
            cost = max(min(cost, terms.prepay_max), terms.amount)  # what was learned is no reason to pay too far ahead
            payload = yield from self._payload(held, terms, max(cost, told), asked.what)
            turn = held.turn
            assert turn is not None
            answer = yield from self._present(asked, challenge, payload, turn)
            if answer is None or answer.status != 402:
                yield from self._settle(asked, challenge, turn, answer, max(cost, told))
                return answer
            fresh = self._challenge(asked, answer)
            if fresh is None:
                return answer
            if challenge.request != fresh.request:
                cost = told = 0  # what was learned of the price is not true any more
            challenge = fresh
            problem = parse_problem(answer.body, 402)
            name = problem.name
            if name == "session/insufficient-balance":
                required = yield Do(partial(self._insufficient, turn, problem))
                if required is None:
                    return answer
                told = max(terms.amount, required)
            elif name == "session/channel-finalized" or name == "session/amount-exceeds-deposit":
                yield Do(turn.end)
                held.release()
                endings += 1
                if endings > 1:
                    return answer
            elif problem.code in ("funding_unconfirmed", "funding_not_found"):
                yield from self._confirmation(turn, problem, answer)
                rounds -= 1
            elif not (yield from self._go_on(turn, problem, answer, payload)):
                return answer
        return answer

    def _go_on(self, turn: Turn, problem: Problem, answer: Answer, payload: dict[str, object]) -> Flow[bool]:
        """Take note of a refusal; return whether to try again. Raises StateBehindServer, ServerMisbehaved."""
        name = problem.name
        if answer.one(SNAPSHOT.lower()):
            yield Do(partial(self._adopt, turn, answer.one(SNAPSHOT.lower())))
            return True
        if problem.code == "out_of_order":
            yield Do(turn.behind)
        if name == "session/channel-not-found":
            turn.must_open()
            return payload["action"] == "voucher"
        if name in ("session/delta-too-small", "payment-insufficient"):
            turn.refused(name == "session/delta-too-small")  # if it had been taken before, it would not be judged again
            return True
        if problem.code == "prepay_too_large" and turn.is_pending and not turn.is_opening:
            amounts = problem.amounts.get("acceptedCumulative", 0), problem.amounts.get("spent", -1)
            yield Do(partial(turn.withdraw, *amounts))
            return True
        if name in ("invalid-challenge", "payment-expired"):
            if turn.is_fresh:  # otherwise an earlier presentation may have been taken
                turn.refused()
            return True
        return False

    def _confirmation(self, turn: Turn, problem: Problem, answer: Answer) -> Flow[None]:
        """Wait as long as the server says before the same credential is presented again. Raises NotYetConfirmed."""
        pause = _retry_after(answer) or 1.0
        if turn.waited + pause > self._deadline:
            raise NotYetConfirmed(f"channel {turn.name}: {problem.detail}; the same request works later", problem.code)
        turn.waited += pause
        yield Wait(pause)

    def _insufficient(self, turn: Turn, problem: Problem) -> int | None:
        """The server has the payment, and its credit does not do. Return what the request costs by its word, None if the server
        took what was signed for this very request and gave nothing for it: nothing more is signed then."""
        accepted, spent = problem.amounts.get("acceptedCumulative"), problem.amounts.get("spent")
        if accepted is None or spent is None or accepted < turn.signed_value:
            return None
        if turn.added and accepted - spent < turn.added:
            return None
        turn.taken(accepted, spent, is_answered=False)
        return max(problem.amounts.get("requiredCumulative", 0) - spent, 0)

    def _adopt(self, turn: Turn, text: str) -> None:
        try:
            snapshot = parse_snapshot(text)
        except ValueError:
            turn.behind()
        turn.adopt(snapshot)

    def _settle(self, asked: Asked, challenge: Challenge, turn: Turn, answer: Answer | None, cost: int) -> Flow[None]:
        """Take note of the outcome that an answer proves. Without a receipt for the payment it stays pending."""
        if answer is not None and answer.status == 409:
            problem = parse_problem(answer.body, 409)
            accepted, spent = problem.amounts.get("acceptedCumulative"), problem.amounts.get("spent")
            if problem.code == "already_served" and accepted is not None and spent is not None:
                yield Do(partial(turn.taken, accepted, spent, False, True))
            return
        receipt = receipt_of(answer)
        if receipt is None or receipt.outpoint != turn.record.terms.outpoint:
            return
        self._hold(asked, challenge, cost)

        def work() -> None:
            turn.taken(receipt.accepted, receipt.spent, is_purchase=True)
            keep_receipt(self.purse.directory, turn.name, receipt.jws)
            turn.release()
            try:
                self.purse.prepare(turn.terms, cost)
            except ClientError:
                return  # `take` says so when the channel that there is has ended

        yield Do(work)

    # --- its parts ---

    def _payload(self, held: _Held, terms: Terms, cost: int, what: str) -> Flow[dict[str, object]]:
        """Take a turn, if there is none, and pay. Raises what `Purse.take` and `Turn.pay` do."""
        deadline = time.monotonic() + self._deadline
        pause = 0.002

        def work() -> dict[str, object]:
            self.purse.agree(terms)
            if held.turn is not None and not held.turn.pays(terms):
                held.release()
            if held.turn is None:
                held.turn = self.purse.take(terms, cost)
            held.turn.terms = terms
            return held.turn.pay(cost, what, self.purse.budget_on(terms.network), self.purse.ask)

        while True:
            try:
                payload: dict[str, object] = yield Do(work)
                return payload
            except UsedUp:
                held.release()
            except (PurseBusy, ChannelBusy):
                if time.monotonic() > deadline:
                    raise
                yield Wait(pause * (0.5 + random.random()))
                pause = min(2 * pause, 0.1)

    def _present(
        self, asked: Asked, challenge: Challenge, payload: dict[str, object], turn: Turn, method: str = ""
    ) -> Flow[Answer | None]:
        """Send the request with its credential until it has an answer that is one: the same payment is safe for ever."""
        header, value = _credential(asked, challenge, payload)
        deadline, pause = time.monotonic() + self._deadline, 0.1
        while True:
            answer: Answer | None = yield Try({header: value}, method)
            if answer is not None and not _is_unknown(asked, answer):
                return answer
            turn.is_fresh = False
            wait = max(pause * (0.5 + random.random() / 2), min(_retry_after(answer), 5.0))
            if time.monotonic() + wait > deadline:
                return answer
            yield Wait(wait)
            pause = min(2 * pause, 5.0)

    def _terms(self, asked: Asked, challenge: Challenge) -> Terms:
        try:
            request = challenge.session()
        except ValueError as error:
            raise TermsRefused(f"the server's request makes no sense: {error}") from error
        return read_terms(asked.origin, request, self.purse.settings.network)

    # --- challenges ---

    def _known(self, asked: Asked) -> tuple[Challenge | None, int]:
        """Return a challenge that this request can be answered with at once, its own or a neighbour's below the same path, and what
        it cost before, 0 if that is not known."""
        key = (asked.origin, asked.method, asked.path)
        for known in (key, _neighbours(key)) if key not in self._free else (key,):
            challenge, cost = self._challenges.get(known, (None, 0))
            if challenge is None:
                continue
            expires = challenge.expires_at
            if expires is None or expires > self._clock() + EXPIRY_MARGIN:
                return challenge, cost if known == key else 0
            with self._mutex:
                self._challenges.pop(known, None)
        return None, 0

    def _hold(self, asked: Asked, challenge: Challenge, cost: int) -> None:
        if challenge.digest:
            return  # it is bound to one body
        key = (asked.origin, asked.method, asked.path)
        with self._mutex:
            self._free.discard(key)
            for known in (key, _neighbours(key)):
                self._challenges.pop(known, None)
                self._challenges[known] = (challenge, cost)
            while len(self._challenges) > CHALLENGES_MAX:
                del self._challenges[next(iter(self._challenges))]

    def _forget(self, origin: str) -> None:
        """What was held of a server's challenges was refused: the next request asks it anew."""
        with self._mutex:
            self._challenges = {key: held for key, held in self._challenges.items() if key[0] != origin}

    def _challenge(self, asked: Asked, answer: Answer | None) -> Challenge | None:
        """Return the challenge of ours in a 402, the first whose terms can be agreed to, None if it has none of ours. Raises
        TermsRefused if it has, and none can."""
        if answer is None or answer.status != 402:
            return None
        refusal: ClientError | None = None
        for challenge in parse_challenges(answer.all("www-authenticate")):
            if not challenge.is_ours:
                continue
            try:
                _ = self._terms(asked, challenge), challenge.expires_at
                return challenge
            except ValueError:
                refusal = refusal or TermsRefused("the challenge's expiry makes no sense")
            except ClientError as error:
                refusal = refusal or error
        if refusal is not None:
            raise refusal
        return None

    def cost_of(self, asked: Asked) -> int:
        """Return what this request cost when it was bought last, in satoshi; 0 if it was not."""
        return self._known(asked)[1]

    # --- what is no purchase ---

    def top_up(self, asked: Asked, need: NeedVoucher, already: int) -> Flow[int]:
        """Pay for a stream that has used up what was paid: a HEAD with a voucher. A stream stays on its channel.

        already: satoshi that were added for this stream before; returns that with what was added now. Raises UsedUp,
        BudgetExceeded, TermsRefused, and Refused if the server does not take it: the stream would wait in vain.
        """
        challenge, _ = self._known(asked)
        if challenge is None:
            raise TermsRefused("the stream asks for a payment that no challenge is held for")
        terms, held = self._terms(asked, challenge), _Held()

        def work() -> dict[str, object]:
            if held.turn is None:
                held.turn = self.purse.turn_on(self.purse.find(format_channel_id(need.outpoint)), terms)
                held.turn.added = already
            budget = self.purse.budget_on(terms.network)
            return held.turn.pay_up_to(need.required, f"{asked.what} (stream)", budget, self.purse.ask)

        try:
            for _ in range(ROUNDS_MAX):
                payload = yield from self._patiently(work)
                turn = held.turn
                assert turn is not None
                receipt = receipt_of((yield from self._present(asked, challenge, payload, turn, "HEAD")))
                if receipt is None or receipt.outpoint != turn.record.terms.outpoint:
                    break
                yield Do(partial(turn.taken, receipt.accepted, receipt.spent))
                if turn.acknowledged_value >= need.required:
                    return turn.added
            raise Refused("the server asked for a payment for the stream, and did not take it", "stream_unpaid")
        finally:
            held.release()

    def stream_ended(self, receipt: Receipt) -> Flow[None]:
        """Take note of what a stream gave back at its end, and keep what its seller signed."""

        def work() -> None:
            channel = format_channel_id(receipt.outpoint)
            with suppress(ClientError):  # the next purchase is told, too
                self.purse.taken(channel, receipt.accepted, receipt.spent, is_purchase=False)
                keep_receipt(self.purse.directory, self.purse.find(channel), receipt.jws)

        yield Do(work)

    def close_channel(self, asked: Asked, name: str) -> Flow[str]:
        """Have a channel settled by the server at this URL; return the settlement's txid, empty if the server did not say it."""
        answer: Answer | None = yield Try()
        challenge = self._known(asked)[0] or self._challenge(asked, answer)
        if challenge is None:
            raise Refused(f"{asked.url} asks for no payment, so nobody there knows the channel")
        terms, held = self._terms(asked, challenge), _Held()

        def work() -> dict[str, object]:
            held.turn = self.purse.turn_on(name, terms)
            return held.turn.closing()

        try:
            payload = yield from self._patiently(work)
            turn = held.turn
            assert turn is not None
            receipt = receipt_of((yield from self._present(asked, challenge, payload, turn, "HEAD")))
            if receipt is None or not receipt.settlement_txid or receipt.outpoint != turn.record.terms.outpoint:
                return ""
            yield Do(partial(turn.closed, receipt.settlement_txid))
            return receipt.settlement_txid
        finally:
            held.release()

    def _patiently(self, work: Callable[[], dict[str, object]]) -> Flow[dict[str, object]]:
        """Do work that needs a turn; wait for it while others have theirs."""
        deadline = time.monotonic() + self._deadline
        while True:
            try:
                payload: dict[str, object] = yield Do(work)
                return payload
            except ChannelBusy:
                if time.monotonic() > deadline:
                    raise
                yield Wait(0.01)


def receipt_of(answer: Answer | None) -> Receipt | None:
    """Return the receipt that comes with a success, None if there is none that makes sense."""
    if answer is None or not 200 <= answer.status < 300:
        return None
    try:
        return parse_receipt(answer.one(RECEIPT.lower()))
    except ValueError:
        return None


def _neighbours(key: tuple[str, str, str]) -> tuple[str, str, str]:
    origin, method, path = key
    return origin, method, path.rpartition("/")[0] + "/*"


def _credential(asked: Asked, challenge: Challenge, payload: dict[str, object]) -> tuple[str, str]:
    """Return the header that pays. Raises Refused if the request has an Authorization of its own, and the server names no other."""
    if asked.has_authorization and challenge.header != CREDENTIAL_HEADER:
        raise Refused("the request has an Authorization header, where the payment belongs", "authorization_taken")
    try:
        credential = read_payload(challenge, payload)
    except Rejection as error:
        raise TermsRefused(f"the payment cannot be presented: {error.detail}") from error
    return (CREDENTIAL_HEADER if challenge.header == CREDENTIAL_HEADER else "Authorization"), credential.render()


def _is_unknown(asked: Asked, answer: Answer) -> bool:
    """Return whether an answer leaves open what became of the payment, and the same request may be sent again."""
    if answer.status != 503:
        return False
    return asked.method in _REPEATABLE or parse_problem(answer.body, 503).code in BY_CODE


def _retry_after(answer: Answer | None) -> float:
    text = answer.one("retry-after") if answer is not None else ""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0
