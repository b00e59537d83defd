"""The till's rules, without I/O: what is asked of the sellers' door for a request, and what the payer is answered
(docs/PAYMENT_SCHEME.md sections 2.3 to 2.7).

Who may answer the second of two requests with one payment? The purchase's key is the payment and the request, so the door sells
once, whatever process asks, and says `repeated` to all but one. That one runs the handler. In the same process the others wait for
its answer and get the same. Another process cannot know the answer: the first time it says "later" (503), for the handler may be
running just now; after REPEAT_SECONDS it runs the handler once more where that is harmless, else it says that this was served
(409).

Who may give a purchase back? Who knows that nobody serves it: the process that made it, as long as it has the number that it had
then. So whoever is about to run a handler for a purchase that was there takes it over before: it gets a new number, and the process
that had the old one, and may still be at it, can neither give it back nor settle it any more. (It may still answer: that is the
same harmless request, run twice for one price.) Who took it over cannot know what was served before, and gives nothing back.

Who was not answered when it asked for a charge finds a purchase later, or none. Each attempt to have something sold is called by
another number (attempts.py), which the purchase's has in it: what such an attempt has made is ours, and not served, and nothing
else is.
"""

import hashlib
import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlencode

from .._fast.lane import Lane, Plain
from ..core.errors import PaychanError, Rejection, Unavailable
from ..core.outpoint import format_outpoint, txid_hex, txid_of, vout_of
from ..core.payment import decode_payment
from ..core.sales import attempt_of, revision_of
from ..core.units import MAX_MONEY
from ..mpp import problems, receipt
from ..mpp import snapshot as snapshots
from ..mpp.credential import Credential, find_credential, parse_credential
from ..mpp.request import SessionRequest
from ..mpp.sse import NeedVoucher
from .attempts import draw
from .challenges import Challenges
from .facts import Answer, Headers, Price, Request, Sale, Sign, Standing
from .kept import Kept, Outcome
from .owed import Last, Owed
from .refusals import error_of, figures_of, too_long
from .steps import UNSENT, Ask, Await, Call, Do, Pause, Sold, Steps, Told

TERMS = "/v1/sell/terms"
TERMS_SECONDS = 60.0
"""So old terms may be; they change with the chain's fees. If they cannot be had anew, the old ones do."""

ASK_AGAIN_SECONDS = (0.1, 0.3, 1.0)
"""Waits before a sale is asked for again whose outcome is unknown."""

METERED_SECONDS = 600
"""So long a metered request may take; then what it holds falls back, and nothing more can be charged for it."""

PATIENCE_SECONDS = 3.0
"""And after so long it is not asked for again: who waits for an answer is better told that it is not known."""

REPEAT_SECONDS = 1.0
REPEATS_MAX = 3
"""So often a process runs a handler once more for one purchase: who lost an answer asks again, who asks for ever wants more for one
price."""

WAIT_SECONDS = 60.0
"""So long a request waits for the answer to the same one before it."""

NO_STORE = (("cache-control", "no-store"),)
PRIVATE = ("cache-control", "private")

_FOR_EVER = 2**62
"""Unix seconds."""

_HINTS = {
    401: ": the token is not one of `paychan token list CONFIG_DIR`",
    403: ": the token must be of scope charge",
    404: ": that is another port than the [sell] section's",
}

Heard = tuple[float, Told | None]
"""When a sale was asked for (monotonic seconds), and what was answered first."""

log = logging.getLogger("paychan.sell")


class Rules:
    """Of one process. clock: unix seconds; ticks: monotonic seconds; explain: says what may be wrong if the door does not
    answer. sign: makes signed receipts. attempts: see `attempts.draw`."""

    def __init__(
        self,
        challenges: Challenges,
        clock: Callable[[], float],
        ticks: Callable[[], float],
        explain: Callable[[], str],
        sign: Sign | None = None,
        attempts: Callable[[], int] = draw,
    ) -> None:
        self._explain, self._sign, self._draw = explain, sign, attempts
        self._challenges, self._clock, self._ticks = challenges, clock, ticks
        self._kept = Kept(ticks)
        self._standings = Last()  # outpoint: Standing
        self._lane = Lane(self._standings)
        self._owed = Owed(ticks)
        self._repeats = Last()  # purchase key: how often a handler was run again
        self._names = Last()  # purchase key and number: the number that it had at first, as far as we know
        self._seen = Last()  # purchase key: when it was first seen to be another process's
        self._terms: dict[str, Any] = {}
        self._terms_at = -TERMS_SECONDS
        self._complaint = ""

    # --- what a seller's program asks ---

    def decide(self, request: Request, price: Price) -> Steps[Answer | Sale]:
        """Return what a request gets: an Answer to send, or the Sale to serve. Never raises what a payer could cause."""
        if not self._are_terms_fresh and (yield from self._keep_terms()) is None:
            return self.refuse(Unavailable("store_unavailable"), request, None)
        try:
            text = find_credential(request.credentials)
            if text is None:
                raise Rejection("payment_required")
            return (yield from self._pay(request, parse_credential(text), price))
        except PaychanError as error:
            return self.refuse(error, request, price)

    def begin_plainly(self, request: Request, price: Price) -> Plain | None:
        """Recognize a plain purchase, and take it on: its charge is to be asked for, and what the door says goes to `end_plainly`.
        None: `decide` has all other requests, good and bad."""
        if len(request.credentials) != 1 or request.body is None or request.method == "HEAD" or price.is_metered:
            return None
        ticks = self._ticks()
        if not self._terms or ticks - self._terms_at >= TERMS_SECONDS:
            return None
        named = request.idempotency_key.encode("utf-8", "surrogateescape") or request.body
        shop, now = self._challenges.shop, int(self._clock())
        plain = self._lane.recognize(request.credentials[0], price, shop, request.method, request.target, named, now, self._draw())
        if plain is None or not self._kept.claim(plain.key, plain.outpoint):
            return None
        plain.asked_at = ticks
        return plain

    def end_plainly(self, request: Request, price: Price, plain: Plain, sold: Sold) -> Sale:
        """Return the sale of a plain purchase that was sold just now."""
        number, received, spent, left = sold
        standing = Standing(received + left, received, spent)
        self._standings.note(plain.outpoint, standing)
        name = self._names.get((plain.key, number), 0) if self._names else 0
        return Sale(
            request, price, plain.outpoint, plain.key, number, plain.challenge_id, standing, payment=plain.payment, name=name
        )

    def go_on(self, request: Request, price: Price, plain: Plain, told: Told | None) -> Steps[Answer | Sale]:
        """Decide on what was begun as a plain purchase and is none. told: by the door; None: unknown."""
        try:
            credential = parse_credential(find_credential(request.credentials) or "")
            return (yield from self._buy_claimed(request, credential, price, plain.key, plain.attempt, (plain.asked_at, told)))
        except PaychanError as error:
            return self.refuse(error, request, price)

    def abandon(self, plain: Plain) -> None:
        """Let go of a plain purchase whose outcome nobody waits for any more: it may be charged."""
        self._owed.note(plain.key, plain.attempt)
        self._kept.settle(plain.key, Outcome.GIVEN_BACK)

    def manage(self, request: Request) -> Steps[Answer | None]:
        """Return the answer to a request that handles a channel and buys nothing, whatever its price: HEAD with a credential."""
        if request.method != "HEAD":
            return None
        try:
            text = find_credential(request.credentials)
        except Rejection as error:
            return self.refuse(error, request, None)
        if text is None:
            return None
        return (yield from self.decide(request, Price(1)))  # type: ignore[return-value]  # HEAD buys nothing: no Sale

    def finish_plainly(self, sale: Sale, status: int) -> Headers | None:
        """Return what `finish` does where that takes no step; None elsewhere."""
        if not 200 <= status < 300 or sale.price.is_metered or self._sign is not None:
            return None
        standing, now = sale.standing, int(self._clock())
        text = receipt.encode_plain(
            sale.outpoint, sale.challenge_id, now, standing.received, standing.spent, standing.funding_value, sale.units
        )
        return None if text is None else ((receipt.HEADER, text), PRIVATE)

    def finish(self, sale: Sale, status: int) -> Steps[Headers | Answer]:
        """See facts.py."""
        if not 200 <= status < 300:
            yield from self.failed(sale)
            return ()
        if sale.price.is_metered and sale.is_open and not (yield from self._settle_metered(sale)):
            self._kept.settle(sale.key, Outcome.GIVEN_BACK)
            return self.refuse(Unavailable("store_unavailable"), sale.request, sale.price)
        told = self.receipt_of(sale) if sale.is_stream else (yield from self.signed_receipt(sale))
        return ((receipt.HEADER, told.encode()), PRIVATE)

    def keep(self, sale: Sale, answer: Answer) -> None:
        """See facts.py."""
        self._kept.settle(sale.key, answer)

    def keep_texts(self, sale: Sale, status: int, body: bytes, texts: tuple[str, ...]) -> None:
        """Do the same. texts: names and values of the answer's headers in turn."""
        self._kept.keep(sale.key, status, body, texts)

    def forget(self, sale: Sale) -> None:
        """See facts.py."""
        self._seen.note(sale.key, self._ticks() - REPEAT_SECONDS)  # we know that nobody serves it any more
        self._kept.settle(sale.key, Outcome.NOT_KEPT)

    def failed(self, sale: Sale) -> Steps[None]:
        """See facts.py. What cannot be given back now is remembered: the same payment will be served for it. What another process
        has made is not ours to give back."""
        if not sale.is_repeated:
            told = yield from self._patiently(self._release(sale))
            if told is None or told.is_unknown:
                self._owed.note(sale.key, attempt_of(sale.number))
            elif told.status == 200:
                self._note(sale.outpoint, told)
        self._kept.settle(sale.key, Outcome.GIVEN_BACK)

    def extend(self, sale: Sale, number: int) -> Steps[tuple[str, int] | NeedVoucher]:
        """Charge as many units again as a sale had at first, from the credit: for its `number`th part. Return the key and number of
        that purchase, or what the payer must be asked for. Raises PaychanError: the channel sells no more, or nobody knows.

        A part that was there is taken over. If it is of another process, which runs the same sale, number 0 says that nothing of it
        is given back."""
        key = f"{sale.key}:{number}"
        ask = {"do": "charge", "channel": format_outpoint(sale.outpoint), "key": key, "amount": sale.price.cost}
        told = yield from self._patiently({**ask, "attempt": self._draw()}, is_owed=True)
        is_anothers = False
        if told is not None and told.status == 200 and told.content["repeated"]:
            found = told.content["purchase"]["number"]
            is_anothers = not self._owed.owes(key, found)
            told = yield from self._patiently({**ask, "again": found, "attempt": self._draw()}, is_owed=not is_anothers)
        if told is None:
            raise Unavailable("store_unavailable")
        if told.status == 200:
            sale.standing = self._note(sale.outpoint, told)
            return key, 0 if is_anothers and told.content["repeated"] else told.content["purchase"]["number"]
        if told.code != "insufficient_credit":
            raise error_of(told)
        required, accepted = told.content["required"], told.content["required"] - told.content["missing"]
        if required > sale.standing.funding_value:
            raise Rejection("amount_exceeds_deposit", figures=figures_of(sale.outpoint, sale.standing, required))
        return NeedVoucher(sale.outpoint, required, accepted, sale.standing.funding_value)

    def end_part(self, sale: Sale, key: str, number: int, units: int) -> Steps[None]:
        """Give back what of a part was not delivered. number: 0 if it is another's. units: those that were delivered."""
        if not number:
            return
        where = {"channel": format_outpoint(sale.outpoint), "key": key, "number": number}
        settle = {"do": "settle", **where, "amount": units * sale.price.amount}
        told = yield from self._patiently(settle)
        if told is not None and told.status == 200:
            sale.standing = self._note(sale.outpoint, told)

    def receipt_of(self, sale: Sale) -> receipt.Receipt:
        """Return the receipt of a sale as its channel stands."""
        standing = sale.standing
        return receipt.Receipt(
            outpoint=sale.outpoint,
            challenge_id=sale.challenge_id,
            timestamp=int(self._clock()),
            accepted=standing.received,
            spent=standing.spent,
            deposit=standing.funding_value,
            units=sale.units,
        )

    def signed_receipt(self, sale: Sale, number: int = 0) -> Steps[receipt.Receipt]:
        """Return the receipt that proves a sale. number: of the part that a stream charged last; 0: there is none, or it is
        another's."""
        if self._sign is None:
            return self.receipt_of(sale)
        bought = replace(sale.bought, number=revision_of(number)) if number else sale.bought
        signed: str | None = yield Do(partial(self._sign, bought))
        return replace(self.receipt_of(sale), jws=signed or "")

    # --- paying ---

    def _pay(self, request: Request, credential: Credential, price: Price) -> Steps[Answer | Sale]:
        now = int(self._clock())
        manages = request.method == "HEAD" or credential.action == "close"
        key = _purchase_key(self._challenges.shop, credential, request)
        if not manages and self._kept.holds(key) and (kept := (yield from self._kept_answer(key, credential))) is not None:
            return kept
        asked = self._challenges.check(credential.challenge, None if manages else price, now)
        if not manages and credential.action == "voucher":
            self._learn(request, credential, price, asked)
        if manages:  # it costs nothing, and what it may be used for is what its challenge was for
            price = Price(asked.amount, unit=asked.unit_type or "request", description=asked.description or "")
        if credential.action == "close":
            return (yield from self._close(request, credential, price))
        if request.body is None and not request.idempotency_key:
            return too_long()
        cost = 0 if manages else price.cost
        is_open = credential.action == "voucher" or not (yield from self._open(credential))
        if is_open and not self._is_in_reach(credential, asked, cost):
            yield from self._check_height(credential, asked, cost)
        if manages:
            return (yield from self._take(request, credential, price))
        if not self._kept.claim(key, credential.outpoint):  # it came while we asked for something else
            return (yield from self._pay(request, credential, price))
        return (yield from self._buy_claimed(request, credential, price, key, self._draw()))

    def _learn(self, request: Request, credential: Credential, price: Price, asked: SessionRequest) -> None:
        """Let the next payment with a challenge that was found good go the plain way."""
        challenge, until = credential.challenge, credential.challenge.expires_at
        shown, shop = request.credentials[0], self._challenges.shop
        self._lane.learn(shown, price, shop, challenge.id, _FOR_EVER if until is None else until, price.cost, asked.max_prepay)

    def _buy_claimed(
        self, request: Request, credential: Credential, price: Price, key: str, attempt: int, heard: Heard | None = None
    ) -> Steps[Answer | Sale]:
        """Buy what is ours to see to. heard: when it was asked for, and the first answer, if it was asked for already."""
        try:
            sold = yield from self._buy(request, credential, price, key, attempt, heard)
        except BaseException:
            self._kept.settle(key, Outcome.GIVEN_BACK)
            raise
        if isinstance(sold, Answer):
            self._kept.settle(key, Outcome.GIVEN_BACK)
        return sold

    def _kept_answer(self, key: str, credential: Credential) -> Steps[Answer | None]:
        """Return the answer that this payment has bought with this request, waiting for one that is being made. Who shows a payment
        that was taken needs no further proof: nobody else can have made it."""
        while (found := self._kept.find(key)) is not None:
            if isinstance(found, Answer):
                return found
            if isinstance(found, Future):
                outcome = yield Await(found, WAIT_SECONDS)
                if isinstance(outcome, Answer):
                    return outcome
                if outcome is None:
                    raise Unavailable("overloaded", "The same request is being served; send it again")
        return None

    def _is_in_reach(self, credential: Credential, asked: SessionRequest, cost: int) -> bool:
        """Return whether nothing that we know of the channel is against a voucher's height. It may be old."""
        standing = self._standings.get(credential.outpoint)
        return standing is not None and self._why_not(standing, credential, asked, cost) is None

    def _check_height(self, credential: Credential, asked: SessionRequest, cost: int) -> Steps[None]:
        """Refuse a voucher that rises too little, or too far above what is required, by what the door tells now. Raises
        Rejection."""
        standing = yield from self._look(credential.outpoint)
        if (error := self._why_not(standing, credential, asked, cost)) is not None:
            raise error

    def _why_not(self, standing: Standing, credential: Credential, asked: SessionRequest, cost: int) -> Rejection | None:
        if credential.change_value > standing.funding_value:
            return None  # the door says it better
        cumulative = standing.funding_value - credential.change_value
        required = standing.spent + cost
        if cumulative <= standing.received:
            return None
        if cumulative - standing.received < asked.min_voucher_delta and cumulative < required:
            return Rejection("delta_too_small", figures=figures_of(credential.outpoint, standing, required))
        above = cumulative - required - asked.max_prepay
        gives_up_all = credential.change_value == 0 and above < asked.details.dust_limit
        if above > 0 and not gives_up_all:
            return Rejection("prepay_too_large", figures=figures_of(credential.outpoint, standing, required))
        return None

    def _buy(
        self, request: Request, credential: Credential, price: Price, key: str, attempt: int, heard: Heard | None
    ) -> Steps[Answer | Sale]:
        """Have the payment taken and the price charged."""
        sale: dict[str, Any] = {
            "do": "reserve" if price.is_metered else "charge",
            "channel": format_outpoint(credential.outpoint),
            "key": key,
            "amount": price.cost,
            "payment": credential.payment_text,
            "attempt": attempt,
        }
        if price.is_metered:
            sale["seconds"] = METERED_SECONDS
        told = yield from self._patiently(sale, is_owed=True, heard=heard)
        if told is None:
            raise Unavailable("store_unavailable")
        if told.status != 200:
            return (yield from self._refused(told, request, credential, price))
        standing = self._note(credential.outpoint, told)
        is_ours = not told.content["repeated"] or self._owed.owes(key, told.content["purchase"]["number"])
        if told.content["repeated"]:
            if not is_ours:
                self._check_repeated(key, request, price, standing, credential)
            told = yield from self._take_over(sale, told, is_ours)
            if told.status != 200:
                return (yield from self._refused(told, request, credential, price))
            standing = self._note(credential.outpoint, told)
        purchase = told.content["purchase"]
        return Sale(
            request=request,
            price=price,
            outpoint=credential.outpoint,
            key=key,
            number=purchase["number"],
            challenge_id=credential.challenge.id,
            standing=standing,
            is_repeated=bool(told.content["repeated"]) and not is_ours,
            is_open=purchase["until"] > 0,
            payment=credential.payment,
            name=self._names.get((key, purchase["number"]), 0),
        )

    def _take_over(self, sale: dict[str, Any], told: Told, is_ours: bool) -> Steps[Told]:
        """Have a purchase made this request's that was there, for who made it may be about to give it back, or a release of ours
        under way. Return what was told: 200 also if it was given back just now, and is charged anew. Raises Unavailable."""
        key, ask = sale["key"], {**sale, "again": told.content["purchase"]["number"], "attempt": self._draw()}
        found = yield from self._patiently(ask, is_owed=is_ours)
        if found is None or found.is_unknown:
            raise Unavailable("store_unavailable")
        if found.code == "no_such_purchase":  # another was faster, or we were, and have not heard of it
            self._seen.note(key, self._ticks())
            raise Unavailable("overloaded", "The same request may be under way elsewhere; send it again")
        if found.status == 200 and found.content["repeated"]:
            name = self._names.get((key, ask["again"]), ask["again"])
            self._names.note((key, found.content["purchase"]["number"]), name)
        if found.status == 200 and not is_ours:
            self._repeats.note(key, self._repeats.get(key, 0) + 1)
        return found

    def _check_repeated(self, key: str, request: Request, price: Price, standing: Standing, credential: Credential) -> None:
        """Refuse what another process, or one before us, has sold, unless it may be run again. At first nothing is said of it: it
        may be under way there, and given back. Raises Rejection, Unavailable."""
        repeats = request.method == "GET" if price.repeats is None else price.repeats
        figures = figures_of(credential.outpoint, standing, standing.spent)
        is_over = self._repeats.get(key, 0) >= REPEATS_MAX
        first = self._seen.setdefault(key, self._ticks())
        if self._ticks() - first < REPEAT_SECONDS and not is_over:
            self._seen.note(key, first)
            raise Unavailable("overloaded", "The same request may be under way elsewhere; send it again", figures=figures)
        if not repeats or is_over:
            raise Rejection("already_served", figures=figures)

    def _refused(self, told: Told, request: Request, credential: Credential, price: Price) -> Steps[Answer]:
        """Return the answer to a refusal of the door's."""
        error = error_of(told)
        more: Headers = ()
        if error.code == "purchase_differs":
            error = Rejection("already_served", "This payment has bought the same at another price")
        if problems.is_authentic_but_stale(error):
            error, more = yield from self._snapshot(error, credential, price)
        facts = self._facts(error.code, credential, told, price)
        if error.code == "insufficient_credit" and facts["requiredCumulative"] > facts.get("deposit", MAX_MONEY):
            error = Rejection("amount_exceeds_deposit")
        return self.refuse(error, request, price, facts, more)

    def _facts(self, code: str, credential: Credential, told: Told, price: Price) -> dict[str, Any]:
        """Return what a refusal tells of the channel; nothing to who has not signed."""
        if code in ("bad_signature", "high_s"):
            return {}
        standing: Standing | None = self._standings.get(credential.outpoint)
        if code == "insufficient_credit" and told.code == code:
            required, missing = told.content["required"], told.content["missing"]
            deposit = standing.funding_value if standing else MAX_MONEY
            now = Standing(deposit, required - missing, required - price.cost)
            return figures_of(credential.outpoint, now, required) if standing else {"requiredCumulative": required}
        if standing is None:
            return {"channelId": credential.channel_id}
        return figures_of(credential.outpoint, standing, standing.spent + price.cost)

    def _snapshot(self, error: PaychanError, credential: Credential, price: Price) -> Steps[tuple[PaychanError, Headers]]:
        """Return the snapshot's header for who has signed a payment on the channel, or what is wrong with its signature."""
        ask = {"do": "snapshot", "channel": format_outpoint(credential.outpoint), "payment": credential.payment_text}
        told = yield from self._patiently(ask)
        if told is None:
            raise Unavailable("store_unavailable")
        if told.status != 200:
            return error_of(told), ()
        content = told.content
        self._note(credential.outpoint, told)
        made = snapshots.Snapshot(
            outpoint=credential.outpoint,
            chain=str(self._terms["chain"]),
            client_pubkey=bytes.fromhex(content["client_pubkey"]),
            exp_time=content["exp_time"],
            change_address=content["change_address"],
            deposit=content["funding_value"],
            accepted=content["received"],
            spent=content["spent"],
            required=content["spent"] + price.cost,
            payment=decode_payment(content["payment"]),
        )
        return error, ((snapshots.HEADER, made.encode()),)

    # --- handling channels ---

    def _open(self, credential: Credential) -> Steps[bool]:
        """Have a channel opened. False: it is open already, and the payment counts as a voucher. Raises PaychanError."""
        opening = credential.opening
        assert opening is not None
        query = urlencode(
            {
                "client_pubkey": opening.client_pubkey.hex(),
                "exp_time": opening.exp_time,
                "change_address": opening.change_address,
                "payment": credential.payment_text,
                "funding_txid": txid_hex(txid_of(credential.outpoint)),
                "funding_vout": vout_of(credential.outpoint),
            }
        )
        told = yield Call("POST", f"/v1/channels/new?{query}")
        if told is None:
            raise Unavailable("store_unavailable")
        if told.code == "channel_exists":
            return False
        if told.status != 201:
            raise error_of(told)
        received, left = told.content["value_received"], told.content["channel_value_left"]
        spent = min(int(self._terms["open_price"]), received)
        self._standings.note(credential.outpoint, Standing(received + left, received, spent))
        return True

    def _take(self, request: Request, credential: Credential, price: Price) -> Steps[Answer]:
        """Take a voucher and charge nothing."""
        told = yield Call("PUT", f"/v1/channels/{format_outpoint(credential.outpoint)}?payment={credential.payment_text}")
        if told is None:
            raise Unavailable("store_unavailable")
        if told.status != 200:
            return (yield from self._refused(told, request, credential, price))
        standing = yield from self._look(credential.outpoint)
        return Answer(204, ((receipt.HEADER, self._receipt(credential, standing).encode()), *NO_STORE))

    def _close(self, request: Request, credential: Credential, price: Price) -> Steps[Answer]:
        """Have a channel settled."""
        told = yield Call("DELETE", f"/v1/channels/{format_outpoint(credential.outpoint)}?payment={credential.payment_text}")
        if told is None:
            raise Unavailable("store_unavailable")
        if told.status != 202:
            return (yield from self._refused(told, request, credential, price))
        standing = yield from self._look(credential.outpoint)
        final = self._receipt(credential, standing, str(told.content["settlement_txid"]))
        return Answer(204, ((receipt.HEADER, final.encode()), *NO_STORE))

    def _receipt(self, credential: Credential, standing: Standing, txid: str = "") -> receipt.Receipt:
        return receipt.Receipt(
            outpoint=credential.outpoint,
            challenge_id=credential.challenge.id,
            timestamp=int(self._clock()),
            accepted=standing.received,
            spent=standing.spent,
            deposit=standing.funding_value,
            settlement_txid=txid,
        )

    # --- asking the door ---

    def _patiently(self, sale: dict[str, Any], is_owed: bool = False, heard: Heard | None = None) -> Steps[Told | None]:
        """Ask for one sale, again while its outcome is unknown, in another attempt if it has one; return the last answer. is_owed:
        so is what attempts make that have no answer, also if we are stopped meanwhile. heard: as `_buy_claimed` has it."""
        left, until = list(ASK_AGAIN_SECONDS), (self._ticks() if heard is None else heard[0]) + PATIENCE_SECONDS
        while True:
            answer: Told | None = None
            try:
                told = (yield Ask((sale,))) if heard is None else [heard[1]]
                answer = told[0] if told is not None else None
            finally:
                is_known = answer is not None and not answer.is_unknown
                if is_owed and not is_known and answer is not UNSENT:
                    self._owed.note(sale["key"], sale["attempt"])
            if is_known or not left or self._ticks() > until:
                return answer
            yield Pause(left.pop(0))
            heard = None
            if "attempt" in sale:
                sale = {**sale, "attempt": self._draw()}

    def _release(self, sale: Sale) -> dict[str, Any]:
        return {"do": "release", "channel": format_outpoint(sale.outpoint), "key": sale.key, "number": sale.number}

    def _settle_metered(self, sale: Sale) -> Steps[bool]:
        """Charge what a metered sale has used, and give back the rest. False: that is not known to be done, so nothing may be
        served; it is owed, unless another process has taken it over, or made it."""
        settle = {**self._release(sale), "do": "settle", "amount": sale.units * sale.price.amount}
        told = yield from self._patiently(settle)
        if told is None or told.status != 200:
            if not sale.is_repeated and (told is None or told.code != "no_such_purchase"):
                self._owed.note(sale.key, attempt_of(sale.number))
            return False
        sale.standing = self._note(sale.outpoint, told)
        return True

    def _look(self, outpoint: bytes) -> Steps[Standing]:
        """Return how a channel stands. Raises PaychanError."""
        told = yield Call("GET", f"/v1/sell/channels/{format_outpoint(outpoint)}")
        if told is None:
            raise Unavailable("store_unavailable")
        if told.status != 200:
            raise error_of(told)
        return self._note(outpoint, told)

    def _note(self, outpoint: bytes, told: Told) -> Standing:
        content = told.content
        standing = Standing(content["received"] + content["channel_value_left"], content["received"], content["spent"])
        self._standings.note(outpoint, standing)
        return standing

    @property
    def _are_terms_fresh(self) -> bool:
        return bool(self._terms) and self._ticks() - self._terms_at < TERMS_SECONDS

    def _keep_terms(self) -> Steps[dict[str, Any] | None]:
        """Return the terms, asked for again; None if there are none."""
        if self._terms:
            self._terms_at = self._ticks() - TERMS_SECONDS + 5.0  # whoever comes meanwhile takes the old ones
        told = yield Call("GET", TERMS)
        if told is not None and told.status == 200:
            self._terms, self._terms_at, self._complaint = told.content, self._ticks(), ""
            self._challenges.follow(told.content)
            self._lane.forget()
        else:
            self._complain(told)
        return self._terms or None

    def _complain(self, told: Told | None) -> None:
        answers = "" if told is None else f"the sellers' door answers {told.status} {told.code}{_HINTS.get(told.status, '')}"
        why = answers or self._explain()
        if why != self._complaint:
            self._complaint = why
            log.warning("nothing can be sold: %s", why)

    # --- answering ---

    def refuse(
        self,
        error: PaychanError,
        request: Request,
        price: Price | None,
        facts: dict[str, Any] | None = None,
        more: Headers = (),
    ) -> Answer:
        """Return the answer to a refused request: a problem document, and a challenge where a new credential helps."""
        kind = problems.kind_of(error.code)
        headers: list[tuple[str, str]] = [("content-type", problems.CONTENT_TYPE), *NO_STORE]
        if kind.has_challenge:
            headers.append(("www-authenticate", self._challenges.offer(price or Price(1), int(self._clock())).header))
        if kind.is_passing:
            headers.append(("retry-after", str(problems.RETRY_AFTER_SECONDS)))
        body = b"" if request.method == "HEAD" else problems.render(problems.document(error, facts))
        return Answer(kind.status, (*headers, *more), body)


def _purchase_key(shop: bytes, credential: Credential, request: Request) -> str:
    """Return what a purchase is known by: the shop, the payment, the request that it pays for, and which of several it is, if the
    payer says so."""
    made = hashlib.sha256(shop + credential.outpoint + len(credential.payment).to_bytes(2, "big") + credential.payment)
    made.update(request.fingerprint)
    if credential.purchase:
        made.update(b"\n" + credential.purchase.encode())
    return made.hexdigest()
