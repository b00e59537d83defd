"""Compare the compiled path with the slow judge on random channels and payments, good and spoiled.

    python -m tests.differential.compare --count 100000 --seed 1

Every request goes to `ChannelTable.pay` and to `tests.reference.Judge`; the status, the values, the channel afterwards and
(for each payment signed) the sighash must be equal. The first difference is printed with the seed that finds it again.
"""

import argparse
import base64
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable

from paychan._fast.channel import ChannelTable, read_channel_request
from paychan._fast.payment import split_payment
from paychan._fast.sighash import payment_sighash
from paychan._fast.status import Status
from paychan.core.sharding import shard_of
from tests.differential.channels import (
    NOW,
    SETTLEMENT_PERIOD,
    SHARD_COUNT,
    SHORT_R_NONCE,
    Sample,
    other_payment_type,
    random_sample,
)
from tests.reference import GROUP_ORDER, Judge, Paid, der_integer, encode_der, sighash, split_der

FOREIGN_SHARDS = frozenset(range(7, SHARD_COUNT, 32))
STOPPED_SHARDS = frozenset(range(3, SHARD_COUNT, 16))
PAYMENTS_PER_CHANNEL = 40
CLOSED_PAYMENTS = 3
PHASES = {1: "open", 2: "closing", 5: "settled"}


class Difference(AssertionError):
    """The two disagree."""


def trouble_of(outpoint: bytes) -> str:
    """Return why a channel's shard takes no payment in the table: another worker owns it, or its figures have not come out even."""
    shard = shard_of(outpoint, SHARD_COUNT)
    return "not_owned" if shard in FOREIGN_SHARDS else "shard_stopped" if shard in STOPPED_SHARDS else ""


# --- payments: bytes --------------------------------------------------------------------------------------------------


def pick_payment(rng: random.Random, sample: Sample, left: int) -> Paid:
    """Return a truly signed payment: mostly the next one, sometimes of a value or a kind that must be refused."""
    step = rng.choice([0, 1, 1, rng.randrange(1, 1000), rng.randrange(1, left // 10 + 2)] * 3 + [-1, -rng.randrange(1, 10**6)])
    usual = left - step if left - step >= 700 else left
    value = rng.choice([usual] * 30 + [0, 1, 699, 700, left, sample.terms.funding_value, 2**63, 2**64 - 1])
    if rng.random() < 0.015:
        return sample.sign(0, 0x82)
    if value > 2**63 - 1:  # python-bitcoinlib cannot sign for it, so the signature is for something else
        return Paid(value, sample.sign(700).signature, 0x83)
    kind = rng.random()
    if kind < 0.05:
        return sample.sign(value, nonce=rng.choice([SHORT_R_NONCE, rng.randrange(1, GROUP_ORDER)]))
    if kind < 0.1:
        return sample.sign(value, low_s=False, nonce=rng.randrange(1, GROUP_ORDER))
    if kind < 0.14:
        return sample.sign(value, 0x82)
    if kind < 0.18:
        return Paid(value, sample.sign(value).signature, rng.randrange(256))
    return sample.sign(value)


def lax_der(rng: random.Random, der: bytes) -> bytes:
    """Return a signature that BIP 66 forbids, or that holds impossible numbers in a permitted form."""
    r, s = split_der(der)
    r_part, s_part = der_integer(r), der_integer(s)

    def body(*parts: bytes) -> bytes:
        joined = b"".join(parts)
        return bytes([0x30, len(joined)]) + joined

    def padded(part: bytes) -> bytes:
        return bytes([2, part[1] + 1, 0]) + part[2:]

    def bare(part: bytes) -> bytes:
        return bytes([2, len(part[2:].lstrip(b"\0"))]) + part[2:].lstrip(b"\0")

    choices: list[Callable[[], bytes]] = [
        lambda: body(padded(r_part), s_part),
        lambda: body(r_part, padded(s_part)),
        lambda: body(bare(r_part), s_part),
        lambda: body(r_part, bare(s_part)),
        lambda: body(r_part, s_part, b"\0"),
        lambda: body(r_part, s_part) + b"\0",
        lambda: b"\x30\x81" + der[1:],
        lambda: b"\x31" + der[1:],
        lambda: der[:2] + b"\x03" + der[3:],
        lambda: body(r_part, b"\x03" + s_part[1:]),
        lambda: body(b"\x02\x00", s_part),
        lambda: body(r_part, b"\x02\x00"),
        lambda: der[:1] + bytes([rng.randrange(256)]) + der[2:],
        lambda: der[:3] + bytes([rng.randrange(256)]) + der[4:],
        lambda: encode_der(0, s),
        lambda: encode_der(r, 0),
        lambda: encode_der(r, GROUP_ORDER),
        lambda: encode_der(GROUP_ORDER, s),
        lambda: encode_der(r + GROUP_ORDER, s),
        lambda: encode_der(r, s + GROUP_ORDER),
        lambda: encode_der(2 ** rng.randrange(257, 500) + 1, 1),
        lambda: encode_der(1, 2 ** rng.randrange(257, 500) + 1),
        lambda: encode_der(s, r),
        lambda: encode_der(r, GROUP_ORDER // 2 + rng.randrange(3)),
        lambda: body(s_part, r_part),
    ]
    return rng.choice(choices)()


def spoil_bytes(rng: random.Random, raw: bytes, sample: Sample, stranger: Sample) -> bytes:
    """Return the payment's bytes with one thing wrong."""
    value, der, kind = raw[:8], raw[8:-1], raw[-1:]
    choice = rng.randrange(8)
    if choice == 0:
        bit = rng.randrange(8 * len(raw))
        return (int.from_bytes(raw, "little") ^ 1 << bit).to_bytes(len(raw), "little")
    if choice == 1:
        return value + lax_der(rng, der) + kind if is_strict(der) else raw
    if choice == 2:
        return value + der + bytes([rng.randrange(256)])
    if choice == 3:
        other = [0, 1, 699, 700, sample.terms.funding_value + 1, 21 * 10**14, 21 * 10**14 + 1, 2**63, 2**64 - 1]
        return rng.choice(other).to_bytes(8, "little") + der + kind
    if choice == 4:
        return raw[: rng.randrange(len(raw))]
    if choice == 5:
        return raw + rng.randbytes(rng.randrange(1, 4))
    if choice == 6:
        amount = min(int.from_bytes(value, "little"), 2**63 - 1)
        return value + stranger.sign(amount, kind[0] if kind[0] in (0x82, 0x83) else 0x83).signature + kind
    return value + der + bytes([other_payment_type(kind[0])])


def is_strict(der: bytes) -> bool:
    try:
        split_der(der)
    except Exception:
        return False
    return True


# --- payments: text and requests --------------------------------------------------------------------------------------


def spoil_text(rng: random.Random, text: str) -> str:
    """Return the payment's text in another spelling, good or bad."""
    at = rng.randrange(len(text) + 1)
    choices: list[Callable[[], str]] = [
        lambda: text.rstrip("="),
        lambda: text + "=",
        lambda: text.rstrip("=") + "=" * rng.randrange(6),
        lambda: text.replace("-", "+").replace("_", "/"),
        lambda: text[:at] + rng.choice(" \n\t+/=.%\0é") + text[at + 1 :],
        lambda: text[:at] + text[at + 1 :],
        lambda: text[:at] + rng.choice("ABCxyz019-_") + text[at:],
        lambda: text + "A" * rng.randrange(1, 9),
        lambda: text[:-1] + rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
        lambda: "".join(f"%{ord(c):02x}" if rng.random() < 0.5 else c for c in text if ord(c) < 256),
        lambda: "".join(f"%{ord(c):02X}" for c in text if ord(c) < 256),
        lambda: text[:at] + rng.choice(["%", "%4", "%4g", "%g4", "%%41", "%00"]) + text[at:],
        lambda: "",
    ]
    return rng.choice(choices)()


def spoil_query(rng: random.Random, query: str) -> str:
    choices: list[Callable[[], str]] = [
        lambda: "test=undefined&" + query + ";x",
        lambda: query + "&" + query,
        lambda: query + "&change_address=mmA2XECa7bVERzQKkyy1pNBQ3PC4HnxTC5",
        lambda: "change_address=;" + query,
        lambda: "change_address=a&" + query + "&change_address=b",
        lambda: query.replace("payment", rng.choice(["Payment", "payment ", "paymen", "%70ayment", "payments"])),
        lambda: query.replace("payment=", "payment"),
        lambda: "&;&" + query + ";;",
        lambda: query + "&pad=" + "x" * (2048 - len(query) - 5 + rng.randrange(-1, 2)),
        lambda: "",
    ]
    return rng.choice(choices)()


def spoil_path(rng: random.Random, path: str) -> str:
    head, txid, vout = path.rsplit("/", 2)
    vouts = ["", "+" + vout, "0" + vout, vout + ".0", vout + "e0", "-1", "4294967296", "00", " " + vout, "99999999999"]
    choices: list[Callable[[], str]] = [
        lambda: f"{head}/{txid.upper()}/{vout}",
        lambda: f"{head}/{txid}/{rng.choice(vouts)}",
        lambda: f"{head}/{txid[:-1]}/{vout}",
        lambda: f"{head}/{txid}0/{vout}",
        lambda: f"{head}/{txid[:-1]}g/{vout}",
        lambda: f"{path}/more/segments",
        lambda: f"{path}/",
        lambda: f"{head}//{vout}",
        lambda: f"{head}/{txid}",
        lambda: f"{head}/{txid}//{vout}",
        lambda: path.replace("v1", "v2"),
        lambda: "/v1/channels/"[: rng.randrange(14)],
        lambda: path + "/" + "x" * (1024 - len(path) - 1 + rng.randrange(-1, 2)),
        lambda: f"{head}/{rng.randbytes(32).hex()}/{vout}",
    ]
    return rng.choice(choices)()


# --- comparing --------------------------------------------------------------------------------------------------------


class Comparison:
    """One table and one judge that see the same requests. `outcomes` counts what they answered."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._table = ChannelTable(SHARD_COUNT, SETTLEMENT_PERIOD, 1000)
        self._table.own([int(shard not in FOREIGN_SHARDS) for shard in range(SHARD_COUNT)])
        self._table.stop(STOPPED_SHARDS)
        self._judge = Judge(SETTLEMENT_PERIOD, trouble_of)
        self._sample = self._stranger = random_sample(self._rng)
        self._used = PAYMENTS_PER_CHANNEL
        self.outcomes: Counter[str] = Counter()

    def step(self) -> None:
        """Try one request. Raises Difference."""
        rng = self._rng
        self._used += 1
        if self._used > PAYMENTS_PER_CHANNEL:
            self._open()
        elif self._judge.accounts[self._sample.terms.outpoint].phase != "open":
            self._used = max(self._used, PAYMENTS_PER_CHANNEL - CLOSED_PAYMENTS)
        account = self._judge.accounts[self._sample.terms.outpoint]
        paid = self._signed(account.newest.change_value)
        if rng.random() < 0.05:
            paid = account.newest  # a replay
        raw = paid.raw if rng.random() < 0.6 else spoil_bytes(rng, paid.raw, self._sample, self._stranger)
        text = base64.urlsafe_b64encode(raw).decode()
        text = text if rng.random() < 0.85 else spoil_text(rng, text)
        query = f"payment={text}"
        query = query if rng.random() < 0.92 else spoil_query(rng, query)
        path = self._sample.path if rng.random() < 0.92 else spoil_path(rng, self._sample.path)
        self._try(path, query, self._time(), rng.random() < 0.3)

    def _open(self) -> None:
        old = self._sample.terms.outpoint
        self._table.drop(old)
        self._judge.accounts.pop(old, None)
        self._stranger, self._sample = self._sample, random_sample(self._rng)
        self._used = 0
        self._sample.load(self._table)
        self._judge.add(self._sample.account)

    def _signed(self, left: int) -> Paid:
        paid = pick_payment(self._rng, self._sample, left)
        if paid.sighash_type in (0x82, 0x83) and paid.change_value < 2**63:
            terms = self._sample.terms
            compiled = payment_sighash(
                terms.outpoint, terms.redeem_script, terms.change_script, paid.change_value, paid.sighash_type
            )
            if compiled != sighash(self._sample.account, paid.change_value, paid.sighash_type):
                raise Difference(f"sighash of {paid} on {terms}")
        return paid

    def _time(self) -> int:
        last = self._sample.terms.exp_time - SETTLEMENT_PERIOD
        return self._rng.choice([NOW] * 20 + [last - 1, last, last + 1, last + SETTLEMENT_PERIOD, 2**32])

    def _try(self, path: str, query: str, now: int, ignore_change_address: bool) -> None:
        request = (path, query, now, ignore_change_address)
        verdict = self._judge.pay(*request)
        status = Status(self._table.pay(*request))
        self.outcomes[verdict.code] += 1
        if status.name.lower() != verdict.code:
            raise Difference(f"{request}: compiled {status.name}, judge {verdict.code}")
        values = (self._table.value_received, self._table.value_left)
        if status in (Status.ACCEPTED, Status.EXHAUSTED, Status.REPLAYED) and values != (verdict.received, verdict.left):
            raise Difference(f"{request}: compiled (received, left) {values}, judge {verdict}")
        if status == Status.OUT_OF_ORDER and self._table.shortfall != verdict.shortfall:
            raise Difference(f"{request}: compiled shortfall {self._table.shortfall}, judge {verdict}")
        for outpoint, account in self._judge.accounts.items():
            state = (self._table.newest_payment(outpoint), PHASES[self._table.phase(outpoint)])
            if state != (account.newest.raw, account.phase):
                raise Difference(f"{request}: compiled state {state}, judge {account}")
        self._compare_the_cold_path(path, query, status)

    def _compare_the_cold_path(self, path: str, query: str, status: Status) -> None:
        """`read_channel_request` and `split_payment`, used off the hot path, refuse in form exactly what `pay` refuses."""
        cold, _, raw = read_channel_request(path, query)
        cold = cold or split_payment(raw)[0]
        in_form = Status.OK if status < 20 or status in AFTER_FORM else status
        if cold != in_form:
            raise Difference(f"{path} {query}: pay {status.name}, cold path {Status(cold).name}")


AFTER_FORM = (
    Status.OUT_OF_ORDER,
    Status.BAD_SIGNATURE,
    Status.CHANNEL_CLOSING,
    Status.CHANNEL_EXPIRING,
    Status.NO_SUCH_PAYMENT,
    Status.SHARD_STOPPED,
)


def run(count: int, seed: int, progress: Callable[[int], None] = lambda done: None) -> Counter[str]:
    """Compare `count` requests; return how often each answer came. Raises Difference, naming request and seed."""
    comparison = Comparison(seed)
    for done in range(count):
        try:
            comparison.step()
        except Exception as error:
            raise Difference(f"seed {seed}, request {done}: {error}") from error
        progress(done + 1)
    return comparison.outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(4), "little")
    started = time.monotonic()

    def show(done: int) -> None:
        if done % 10_000 == 0 or done == options.count:
            rate = done / (time.monotonic() - started)
            print(f"\r{done} of {options.count} equal, {rate:.0f} a second, seed {seed}", end="", file=sys.stderr, flush=True)

    try:
        outcomes = run(options.count, seed, show)
    except Difference as difference:
        print(f"\n{difference}", file=sys.stderr)
        return 1
    print(file=sys.stderr)
    for code, times in outcomes.most_common():
        print(f"{times:8} {code}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
