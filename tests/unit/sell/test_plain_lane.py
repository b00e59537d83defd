"""Aim: a purchase that goes the plain way gets what the rules would have given it: the same answer, the same questions to the
door, the same things remembered. Method: two tills of one shop, one of which knows no plain way, get the same long sequences of
random and hostile requests, beside two doors that keep books, lose answers, and are away, at the same moments. And the readers of
what comes and goes beside what is said in plain Python."""

import asyncio
import dataclasses
import itertools
import json
import random

from hypothesis import given
from hypothesis import strategies as st

from paychan._fast.fields import dress, look
from paychan._fast.lane import read_sold
from paychan.core.outpoint import format_outpoint
from paychan.mpp.challenge import format_time, make_challenge, parse_challenges
from paychan.mpp.credential import Credential
from paychan.mpp.text import canonical_json, decode_bytes, encode_bytes
from paychan.sell.challenges import Challenges
from paychan.sell.door import _answers
from paychan.sell.facts import Answer, Price, Request, Sale
from paychan.sell.rules import Rules
from paychan.sell.steps import UNSENT, Await, Pause, Told
from paychan.sell.till import Till
from paychan.sell.wire import Door as Place
from paychan.sell.wire import read_answers
from tests.unit.mpp.test_credential import EACH
from tests.unit.sell.test_rules import TERMS

SEQUENCES, LENGTH = 40, 50
FUNDING = 10**6
DER = EACH["voucher"].payment[8:]
OUTPOINTS = [bytes([number]) * 32 + number.to_bytes(4, "little") for number in (7, 11)]
PRICES = [Price(5), Price(9), Price(5), Price(3, units=4), Price(1, units=8, is_metered=True)]


class Books:
    """The door: of each channel what was received, spent and sold. fates: what becomes of each question, in turn."""

    def __init__(self, fates):
        self.fates, self.asked, self.numbers = fates, [], 0
        self.received = dict.fromkeys(map(format_outpoint, OUTPOINTS), 1000)
        self.spent, self.sold = dict(self.received), {}

    def standing(self, channel):
        received = self.received[channel]
        standing = {"received": received, "spent": self.spent[channel], "credit": received - self.spent[channel]}
        return {**standing, "channel_value_left": FUNDING - received}

    def judge(self, sale):
        channel, key = sale["channel"], sale["key"]
        number, amount = self.sold.get(key, (0, 0))
        if "number" in sale or "again" in sale:
            if number != sale.get("number", sale.get("again")):
                return {"status": 404, "code": "no_such_purchase"}
            if sale["do"] == "release":
                self.spent[channel] -= self.sold.pop(key)[1]
                return {"status": 200, **self.standing(channel)}
        if "payment" in sale:
            cumulative = FUNDING - int.from_bytes(decode_bytes(sale["payment"])[:8], "little")
            if cumulative == 13:
                return {"status": 402, "code": "bad_signature"}
            self.received[channel] = max(self.received[channel], cumulative)
        if number and amount != sale["amount"]:
            return {"status": 409, "code": "purchase_differs"}
        missing = 0 if number else self.spent[channel] + sale["amount"] - self.received[channel]
        if missing > 0:
            return {"status": 402, "code": "insufficient_credit", "required": self.received[channel] + missing, "missing": missing}
        is_repeated = bool(number)
        self.spent[channel] += 0 if is_repeated else sale["amount"]
        if not is_repeated or "again" in sale:
            self.numbers += 1
            number = sale["attempt"] << 40 | self.numbers
        self.sold[key] = number, sale["amount"]
        bought = {"number": number, "asked": sale["amount"], "amount": sale["amount"], "until": 9 if sale["do"] == "reserve" else 0}
        return {"status": 200, "repeated": is_repeated, "purchase": bought, "value_received": 1, **self.standing(channel)}

    def charge(self, text, is_plain=True):
        """Answer as the client does, from the answer's own bytes."""
        future, fate = asyncio.get_running_loop().create_future(), next(self.fates)
        self.asked.append(sale := json.loads(text))
        told = None if fate in ("away", "refused") else self.judge(sale)
        if fate == "away":
            future.set_result(UNSENT)
        elif fate == "refused":
            future.set_result(Told(503, {"status": 503, "code": "overloaded"}))
        elif fate == "lost":
            future.set_result(None)
        elif fate == "cancelled":
            future.cancel()
        else:
            (answer,) = _answers(200, json.dumps([told], separators=(",", ":")).encode() + b"\n", [(text, future, is_plain)])
            future.set_result(answer)
        return future

    def ask_one(self, sale):
        return self.charge(json.dumps(sale).encode(), is_plain=False)

    async def ask(self, sales):
        return [await self.ask_one(sale) for sale in sales]

    async def call(self, method, target):
        self.asked.append((method, target))
        if target.endswith("/terms"):
            return Told(200, TERMS)
        channel = target.partition("channels/")[2].partition("?")[0]
        return Told(200, {"status": 200, "settlement_txid": "", **self.standing(channel)})


class Ruled(Rules):
    """Knows no plain way."""

    def begin_plainly(self, request, price):
        return None


class World(Till):
    """A till whose clock and door are ours. plain: how many purchases went the plain way."""

    def __init__(self, make, fates):
        super().__init__(Place("t"), "shop")
        self.now, self.key, self.books, self.plain = 0.0, b"secret", Books(fates), 0
        challenges = Challenges(lambda: self.key, "shop")
        self._rules = make(
            challenges, lambda: 1_800_000_000 + self.now, lambda: self.now, lambda: "nobody answers",
            attempts=lambda: len(self.books.asked) + 1,
        )  # fmt: skip
        self._client = lambda: self.books
        begin = self._rules.begin_plainly

        def counted(request, price):
            plain = begin(request, price)
            self.plain += plain is not None
            return plain

        self._rules.begin_plainly = counted

    async def do(self, step):
        if isinstance(step, Pause):
            self.now += step.seconds
            return None
        if isinstance(step, Await):
            return step.future.result() if step.future.done() else None
        return await super().do(step)

    async def end(self, sale, how):
        """Serve a sale, or fail to; return what is sent with it."""
        if how == "failed":
            return await self.failed(sale)
        more = await self.finish(sale, 500 if how == "500" else 200)
        if how == "kept" and not isinstance(more, Answer):
            self.keep(sale, Answer(200, (("x", "y"), *more), sale.key.encode()))
        elif how == "forgotten":
            self.forget(sale)
        return more

    def offer_all(self):
        for price in PRICES:
            self._rules._challenges.offer(price, int(1_800_000_000 + self.now))

    def memory(self):
        rules, kept = self._rules, self._rules._kept
        entries = [(key, row if isinstance(row, tuple) else row.outpoint) for key, row in kept._entries.items()]
        others = [rules._standings, rules._owed._until, rules._repeats, rules._names, rules._seen, kept._newest]
        return [entries, list(kept._superseded), kept._sum, *[list(other.items()) for other in others]]


def fates(seed):
    """What becomes of the questions: the same for both."""
    chance = random.Random(seed)
    while True:
        yield chance.choices(("told", "lost", "away", "refused", "cancelled"), (30, 2, 1, 1, 2))[0]


async def outcome(steps):
    """Return what they come to, or that they were cancelled."""
    try:
        return await steps
    except asyncio.CancelledError:
        return "cancelled"


class Payer:
    """Makes requests, good and bad, of what both tills offer."""

    def __init__(self, chance, world):
        self.chance, self.world, self.shown = chance, world, []

    def challenge(self, price):
        made = self.world._rules._challenges.offer(price, int(1_800_000_000 + self.world.now)).header
        (challenge,) = parse_challenges([made])
        spoil = self.chance.choices(("", "id", "request", "expires", "description", "realm", "late", "other"), (40,) + 7 * (1,))[0]
        if spoil == "other":
            return make_challenge(b"another secret", "shop", challenge.request, challenge.expires)
        if spoil == "late":
            return make_challenge(self.world.key, "shop", challenge.request, "2027-01-15T08:00:00Z")
        if spoil in ("id", "request"):
            return dataclasses.replace(challenge, **{spoil: getattr(challenge, spoil)[:-2] + "AA"})
        changed = {"expires": "2099-01-01T00:00:00Z", "description": "x", "realm": "x"}
        return dataclasses.replace(challenge, **{spoil: changed[spoil]}) if spoil else challenge

    def payment(self, outpoint, price):
        channel, books = format_outpoint(outpoint), self.world.books
        known, spent = books.received[channel], books.spent[channel]
        way = self.chance.choices(("exact", "more", "less", "same", "high", "all", "bad"), (30, 6, 3, 4, 2, 1, 1))[0]
        exact = max(known + 1, spent + price.cost)
        cumulative = {"exact": exact, "more": exact + self.chance.randint(1, 40), "less": known + 1, "same": known}.get(way)
        if cumulative is None:
            cumulative = {"high": exact + 21 * price.cost + self.chance.randint(0, 1), "all": FUNDING - 700, "bad": 13}[way]
        return (FUNDING - cumulative).to_bytes(8, "little") + DER

    def credential(self, price):
        outpoint = self.chance.choice(OUTPOINTS)
        shown = Credential(self.challenge(price), "voucher", outpoint, self.payment(outpoint, price)).render()
        content = json.loads(decode_bytes(shown[8:]))
        odd = self.chance.choices(("", "space", "case", "source", "order", "cut", "twice", "none"), (40, 1, 1, 1, 1, 1, 1, 1))[0]
        if odd == "source":
            return ("Payment " + encode_bytes(canonical_json({**content, "source": "x"}).encode()),)
        if odd == "order":
            return ("Payment " + encode_bytes(json.dumps(content).encode()),)
        spoiled = {"space": (shown + " ",), "case": ("p" + shown[1:],), "cut": (shown[:-3],), "twice": (shown, shown), "none": ()}
        return spoiled.get(odd, (shown,))

    def request(self, price):
        if self.shown and self.chance.random() < 0.2:
            return self.chance.choice(self.shown[-8:])
        method = self.chance.choices(("GET", "POST", "HEAD"), (10, 4, 1))[0]
        target = self.chance.choices(("/good", "/good?a=1", "/gööd", "/" + "x" * 5000), (20, 8, 1, 1))[0]
        body = self.chance.choices((b"", b"\1" * 32, None), (20, 4, 1))[0]
        named = self.chance.choices(("", "order 17", "é"), (20, 4, 1))[0]
        asked = self.chance.choice(PRICES) if self.chance.random() < 0.1 else price
        made = Request(method, target, self.credential(asked), body, named), price
        self.shown.append(made)
        return made


async def live(seed, counts):
    """One sequence."""
    chance = random.Random(f"sequence {seed}")
    worlds = World(Rules, fates(seed)), World(Ruled, fates(seed))
    payer, usual, open_sales = Payer(chance, worlds[0]), chance.choice(PRICES), []
    for world in worlds:
        await world.decide(Request("GET", "/good"), usual)
    for number in range(LENGTH):
        for world in worlds:  # the rules renew a challenge when they look at it, the plain way does not look
            world.offer_all()
        request, price = payer.request(usual if chance.random() < 0.7 else chance.choice(PRICES))
        told = [await outcome(world.decide(request, price)) for world in worlds]
        assert told[0] == told[1], (seed, number, request)
        counts[told[0].status if isinstance(told[0], Answer) else type(told[0]).__name__] += 1
        if isinstance(told[0], Sale):
            open_sales.append(told)
        while open_sales and chance.random() < 0.8:
            how = chance.choice(("kept", "kept", "kept", "forgotten", "failed", "500"))
            sold = open_sales.pop(chance.randrange(len(open_sales)))
            more = [await outcome(world.end(sale, how)) for world, sale in zip(worlds, sold, strict=True)]
            assert more[0] == more[1], (seed, number, how)
        passes = chance.choices((0, 1, 70, 2000, 4 * 3600), (30, 6, 2, 1, 1))[0]
        for world in worlds:
            world.now += passes
        if chance.random() < 0.01:
            for world in worlds:
                world.key = world.key + b"'"
        assert worlds[0].books.asked == worlds[1].books.asked, (seed, number, request)
        assert worlds[0].memory() == worlds[1].memory(), (seed, number, request)
    counts["plain"] += worlds[0].plain


def test_the_plain_way_does_what_the_rules_do():
    counts = dict.fromkeys(("plain", "Sale", "str", 200, 204, 400, 402, 409, 413, 503), 0)

    async def all_of_them():
        for seed in range(SEQUENCES):
            await live(seed, counts)

    asyncio.run(all_of_them())
    assert counts["plain"] > SEQUENCES * LENGTH / 10 and min(counts.values()) > 0, counts


def test_a_challenge_that_has_expired_goes_the_plain_way_no_more():
    async def buy():
        world, told = World(Rules, itertools.repeat("told")), []
        await world.decide(Request("GET", "/good"), PRICES[0])
        (offered,) = parse_challenges([world._rules._challenges.offer(PRICES[0], 1_800_000_000).header])
        soon = make_challenge(world.key, "shop", offered.request, format_time(1_800_000_010))
        for world.now, cumulative in ((4, 1005), (8, 1010), (12, 1015)):
            payment = (FUNDING - cumulative).to_bytes(8, "little") + DER
            shown = Credential(soon, "voucher", OUTPOINTS[0], payment).render()
            told.append(await world.decide(Request("GET", "/good", (shown,)), PRICES[0]))
        return world.plain, [type(one) for one in told], told[-1]

    plain, kinds, last = asyncio.run(buy())
    assert plain == 1 and kinds == [Sale, Sale, Answer] and b"payment-expired" in last.body


NUMBER = st.one_of(st.integers(0, 10**20), st.integers(0, 9))
SOLD = {"status": 200, "repeated": False, "purchase": {"number": 7, "asked": 5, "amount": 5, "until": 0}, "value_received": 5}
BOUGHT = {**SOLD, "received": 1005, "spent": 1005, "credit": 0, "channel_value_left": 98_995}


def compare(body, count):
    """Read an answer to charges both ways; return whether all were sold, and plainly."""
    plain = read_sold(body, count)
    if plain is not None:
        told = read_answers(200, body, count)
        assert plain == [
            (row.content["purchase"]["number"], *(row.content[name] for name in ("received", "spent", "channel_value_left")))
            for row in told
        ]
        assert all(row.status == 200 and not row.content["repeated"] and not row.content["purchase"]["until"] for row in told)
    return plain is not None


def written(rows):
    return json.dumps(rows, separators=(",", ":")).encode() + b"\n"


@given(st.lists(st.tuples(NUMBER, NUMBER, NUMBER, NUMBER), min_size=1, max_size=20))
def test_an_answer_is_read_as_json_says_it(rows):
    names = ("received", "spent", "channel_value_left")
    told = [
        {**BOUGHT, "purchase": {**SOLD["purchase"], "number": number}, **dict(zip(names, amounts, strict=True))}
        for number, *amounts in rows
    ]
    assert compare(written(told), len(rows)) == (max(map(max, rows)) < 10**19)
    assert not compare(written(told), len(rows) + 1) and not compare(written(told), len(rows) - 1) and not compare(b"[]\n", 0)


ODD_ANSWERS = {
    "repeated": {"repeated": True},
    "refused": {"status": 402},
    "reserved": {"purchase": {**SOLD["purchase"], "until": 9}},
    "below nothing": {"received": -5},
    "a part": {"received": 1.5},
    "a text": {"received": "5"},
    "one more": {"more": 1},
}


@given(st.sampled_from(list(ODD_ANSWERS)), st.integers(0, 3))
def test_an_answer_that_is_not_plain_is_none_for_all(odd, place):
    rows = [BOUGHT] * 4
    rows[place] = {**BOUGHT, **ODD_ANSWERS[odd]}
    assert not compare(written(rows), 4) and not compare(written(rows[place : place + 1]), 1)


@given(st.data())
def test_an_answer_with_any_bytes_changed_is_read_as_json_says_it(data):
    raw = bytearray(written([BOUGHT, BOUGHT]))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.sampled_from(b'"{}[]:,019-.e \x00\xff'))
    compare(bytes(raw), 2)


NAMES = st.sampled_from([b"Content-Type", b"cache-control", b"Payment-Receipt", b"date", b"set-cookie", b"CONTENT-LENGTH", b"x"])


@given(st.lists(st.tuples(NAMES, st.binary(max_size=5))))
def test_an_answer_is_dressed_and_what_belongs_to_one_sending_is_not_kept(headers):
    more = (("Payment-Receipt", "abc"), ("cache-control", "private"))
    sent, texts = dress(headers, more)
    others = [pair for pair in headers if pair[0].lower() not in (b"payment-receipt", b"cache-control")]
    assert sent == [*others, (b"payment-receipt", b"abc"), (b"cache-control", b"private")]
    kept = [pair for pair in sent if pair[0].lower() not in (b"date", b"content-length")]
    flat = [part.decode("latin-1") for name, value in kept for part in (name.lower(), value)]
    assert list(texts) == flat and dress(headers, ())[0] == headers


def test_what_a_till_reads_of_a_request():
    headers = [(b"authorization", b"Payment a"), (b"payment-authorization", b"\xe9"), (b"idempotency-key", b"17"), (b"x", b"y")]
    assert look(headers) == (("Payment a", "é"), "17", False) and look([]) == ((), "", False)
    assert look([(b"content-length", b"0")])[2] is False and look([(b"content-length", b"00")])[2] is True
    assert look([(b"transfer-encoding", b"chunked")])[2] is True
