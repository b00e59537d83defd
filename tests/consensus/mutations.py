"""`python -m tests.consensus.mutations --count N`: what third parties make of our settlements, judged by Bitcoin Core's own code.

Settlements of random channels are changed, in what signatures cover and in what they do not: outputs, inputs, sequence, lock time,
version; the scriptSig's bytes, its pushes, and the value in place of OP_1. What stays valid must pay the same to the same, be known
as what it is, and if nodes relay it, be no larger than the fee engine reckons with. Exits with 1 if anything was otherwise.
"""

import argparse
import dataclasses
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

import pbk
from bitcoin.core import CMutableTransaction, CMutableTxIn, CMutableTxOut, COutPoint, CTransaction
from bitcoin.core.script import CScript
from coincurve import PrivateKey

from paychan.core.channel import ChannelTerms
from paychan.core.outpoint import make_outpoint
from paychan.core.payment import Payment
from paychan.core.script import p2sh_script_pubkey
from paychan.core.sender import sign_payment
from paychan.core.settlement import inflated_size_max, read_settlement, sign_settlement
from tests.copies import LARGEST, minimal_push, split_script_sig, with_flag, with_script_sig

DESTINATION = b"\x76\xa9\x14" + b"\xdd" * 20 + b"\x88\xac"
ADDRESSES = (
    lambda rng: b"\x76\xa9\x14" + rng.randbytes(20) + b"\x88\xac",
    lambda rng: b"\xa9\x14" + rng.randbytes(20) + b"\x87",
    lambda rng: b"\x00\x14" + rng.randbytes(20),
    lambda rng: b"\x00\x20" + rng.randbytes(32),
    lambda rng: b"\x51\x20" + rng.randbytes(32),
)
"""Scripts of each kind of address."""

THIEF = b"\x76\xa9\x14" + b"\xee" * 20 + b"\x88\xac"
SCRIPT_SIG_STANDARD_MAX = 1650
PUSHES = 4
"""Of a settlement: two signatures, what chooses the branch, the redeem script."""

FLAGS = pbk.ScriptVerificationFlags.ALL & ~pbk.ScriptVerificationFlags.TAPROOT


def verifies(terms: ChannelTerms, tx: CTransaction) -> bool:
    """Return whether Core's script interpreter accepts input 0 as a spend of the channel."""
    locked = pbk.ScriptPubkey(p2sh_script_pubkey(terms.redeem_script))
    return locked.verify(terms.funding_value, pbk.Transaction(tx.serialize()), None, 0, FLAGS)


def random_channel(rng: random.Random) -> tuple[ChannelTerms, PrivateKey, PrivateKey]:
    server, client = (PrivateKey(rng.randbytes(32)) for _ in range(2))
    exp_time = rng.choice([rng.randint(500_000_000, 2**32 - 1), 500_000_000, 2**31 - 1, 2**31, 2**32 - 1])
    script = rng.choice(ADDRESSES)(rng)
    outpoint = make_outpoint(rng.randbytes(32), rng.choice([0, 1, rng.randrange(2**32), 2**32 - 1]))
    keys = server.public_key.format(), client.public_key.format()
    terms = ChannelTerms(outpoint, *keys, exp_time, rng.randint(10**6, 21 * 10**14), script)
    return terms, server, client


# --- what signatures cover ---


def swap_script(tx: CMutableTransaction) -> None:
    tx.vout[-1].scriptPubKey = CScript(THIEF)


def lower_value(tx: CMutableTransaction) -> None:
    tx.vout[-1].nValue -= 1


def raise_value(tx: CMutableTransaction) -> None:
    tx.vout[-1].nValue += 1


def add_output(tx: CMutableTransaction) -> None:
    tx.vout.append(CMutableTxOut(1, CScript(THIEF)))


def put_output_first(tx: CMutableTransaction) -> None:
    tx.vout.insert(0, CMutableTxOut(1, CScript(THIEF)))


def drop_output(tx: CMutableTransaction) -> None:
    tx.vout.pop()


def add_input(tx: CMutableTransaction) -> None:
    tx.vin.append(CMutableTxIn(COutPoint(b"\x99" * 32, 0)))


def change_sequence(tx: CMutableTransaction) -> None:
    tx.vin[0].nSequence = 0xFFFFFFFD


def change_lock_time(tx: CMutableTransaction) -> None:
    tx.nLockTime = 1


def change_version(tx: CMutableTransaction) -> None:
    tx.nVersion = 3


def change_outpoint(tx: CMutableTransaction) -> None:
    tx.vin[0].prevout.n ^= 1


MUTATIONS = [swap_script, lower_value, raise_value, add_output, put_output_first, drop_output, add_input]
MUTATIONS += [change_sequence, change_lock_time, change_version, change_outpoint]


def mutated(tx: CTransaction, mutate) -> CTransaction:  # type: ignore[no-untyped-def]
    copy = CMutableTransaction.from_tx(tx)
    mutate(copy)
    return CTransaction.from_tx(copy)


# --- the scriptSig, which none covers ---


def is_true(value: bytes) -> bool:
    return any(value[:-1]) or value[-1:] not in (b"", b"\x00", b"\x80")


def random_flag(rng: random.Random) -> tuple[bytes, bool, bool]:
    """Return bytes of script in place of OP_1, whether they push something true of a valid length, and whether nodes relay it."""
    number = rng.choice((-1, *range(17)))
    if rng.random() < 0.4:
        return bytes(({-1: 0x4F, 0: 0x00}.get(number, 0x50 + number),)), number != 0, number != 0
    size = rng.choice((0, 1, 2, 75, 76, 255, 256, 519, 520, 521, rng.randint(1, 600)))
    data = rng.choice((rng.randbytes(size), bytes(size), bytes(max(0, size - 1)) + b"\x80"))
    shortest = minimal_push(data)
    is_good = is_true(data) and len(data) <= LARGEST
    if rng.random() < 0.7 or len(data) > 0xFF:
        return shortest, is_good, is_good and data != b"\x81"
    longer = rng.choice((b"\x4d" + len(data).to_bytes(2, "little"), b"\x4e" + len(data).to_bytes(4, "little"))) + data
    return longer, is_good, False


def byte_changed(rng: random.Random, script_sig: bytes) -> bytes:
    at, kind = rng.randrange(len(script_sig)), rng.randrange(4)
    other = bytes((script_sig[at] ^ (1 << rng.randrange(8)),))
    return script_sig[:at] + (other, b"", other + script_sig[at : at + 1], rng.randbytes(3))[kind] + script_sig[at + 1 :]


def pieces_changed(rng: random.Random, raw: bytes) -> bytes:
    """Return a scriptSig whose pushes are doubled, dropped, swapped, or lie on others that nobody asked for."""
    before, flag, redeem = split_script_sig(raw)
    client, server = before[: 1 + before[0]], before[1 + before[0] :]
    pieces = [client, server, flag, redeem]
    kind = rng.randrange(4)
    if kind == 0:
        pieces.insert(rng.randrange(5), minimal_push(rng.randbytes(rng.randint(1, LARGEST))))
    elif kind == 1:
        pieces.insert(rng.randrange(5), rng.choice(pieces))
    elif kind == 2:
        pieces.pop(rng.randrange(4))
    else:
        rng.shuffle(pieces)
    return b"".join(pieces)


def relayed_pushes(script_sig: bytes) -> int:
    """Return how many pushes a scriptSig has that nodes relay: only pushes, each the shortest, not too long; 0 if they do not."""
    found, at = 0, 0
    while at < len(script_sig):
        start, code = at, script_sig[at]
        wide = {0x4C: 1, 0x4D: 2}.get(code, 0)
        size = int.from_bytes(script_sig[at + 1 : at + 1 + wide], "little") if wide else code if code < 0x4C else 0
        at += 1 + wide + size
        data = script_sig[at - size : at]
        is_small = code == 0x4F or 0x51 <= code <= 0x60
        if not is_small and (at > len(script_sig) or data == b"\x81" or script_sig[start:at] != minimal_push(data)):
            return 0
        found += 1
    return found if len(script_sig) <= SCRIPT_SIG_STANDARD_MAX else 0


# --- the campaign ---


@dataclass
class Settlement:
    """A settlement that Core accepts, and what its maker knows of it."""

    terms: ChannelTerms
    payment: Payment
    raw: bytes

    def problem(self, copy: bytes) -> str:
        """Return what is wrong with a copy that Core accepts too, empty if nothing is."""
        before, after = CTransaction.deserialize(self.raw), CTransaction.deserialize(copy)
        paid = [(out.nValue, bytes(out.scriptPubKey)) for out in before.vout]
        if [(out.nValue, bytes(out.scriptPubKey)) for out in after.vout] != paid:
            return "it pays otherwise"
        if with_script_sig(copy, b"") != with_script_sig(self.raw, b""):
            return "something else than its scriptSig has changed"
        known = read_settlement(copy, self.terms)
        if known is None or known != dataclasses.replace(read_settlement(self.raw, self.terms), size=len(copy)):  # type: ignore[type-var]
            return "it is not known as the settlement that it is"
        if self.is_relayed(copy) and len(copy) > inflated_size_max(self.terms, self.payment, DESTINATION):
            return f"it has {len(copy)} bytes, more than the fee is reckoned for"
        return ""

    @staticmethod
    def is_relayed(copy: bytes) -> bool:
        return relayed_pushes(bytes(CTransaction.deserialize(copy).vin[0].scriptSig)) == PUSHES


def random_settlement(rng: random.Random) -> Settlement:
    terms, server, client = random_channel(rng)
    payment = sign_payment(terms, rng.choice([0, 700, rng.randint(700, terms.funding_value - 200_000)]), client)
    return Settlement(terms, payment, sign_settlement(terms, payment, DESTINATION, rng.randint(0, 190_000), server))


def mutations(rng: random.Random, raw: bytes) -> Iterator[tuple[str, bytes]]:
    """Give copies of a settlement by what was done to them: one of each kind, and two of a kind upon another."""
    script_sig = bytes(CTransaction.deserialize(raw).vin[0].scriptSig)
    flagged = with_flag(raw, random_flag(rng)[0])
    yield "the value in place of OP_1", flagged
    yield "a byte of the scriptSig", with_script_sig(raw, byte_changed(rng, script_sig))
    yield "the scriptSig's pushes", with_script_sig(raw, pieces_changed(rng, raw))
    for mutate in MUTATIONS:
        yield mutate.__name__, mutated(CTransaction.deserialize(raw), mutate).serialize()
    yield "OP_1 and a signed part", mutated(CTransaction.deserialize(flagged), rng.choice(MUTATIONS)).serialize()
    large = with_flag(raw, minimal_push(b"\x01" + rng.randbytes(LARGEST - 1)))
    yield "a push of 520 bytes", large
    yield (
        "a push of 520 bytes and a byte",
        with_script_sig(large, byte_changed(rng, bytes(CTransaction.deserialize(large).vin[0].scriptSig))),
    )


@dataclass
class Tally:
    """What was tried, by kind, and what came of it. largest: bytes by which a copy that nodes relay exceeds its original."""

    tried: Counter[str] = field(default_factory=Counter)
    valid: Counter[str] = field(default_factory=Counter)
    relayed: int = 0
    largest: int = 0
    problems: list[str] = field(default_factory=list)

    def see(self, kind: str, settlement: Settlement, copy: bytes) -> None:
        self.tried[kind] += 1
        if copy == settlement.raw or not verifies(settlement.terms, CTransaction.deserialize(copy)):
            return
        self.valid[kind] += 1
        if settlement.is_relayed(copy):
            self.relayed += 1
            self.largest = max(self.largest, len(copy) - len(settlement.raw))
        if problem := settlement.problem(copy):
            self.problems.append(f"{kind}: {problem}: {settlement.raw.hex()} -> {copy.hex()}")


def run(number: int, seed: int) -> Tally:
    """Try so many mutations; the same seed gives the same ones."""
    rng, tally = random.Random(seed), Tally()
    for _ in count():
        settlement = random_settlement(rng)
        if not verifies(settlement.terms, CTransaction.deserialize(settlement.raw)):
            tally.problems.append(f"a settlement of ours is refused: {settlement.raw.hex()}")
        for kind, copy in mutations(rng, settlement.raw):
            if tally.tried.total() >= number:
                return tally
            tally.see(kind, settlement, copy)
    raise AssertionError("it has no end")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000, help="mutations")
    parser.add_argument("--seed", type=int, default=20_161_122)
    options = parser.parse_args()
    began = time.monotonic()
    tally = run(options.count, options.seed)
    for kind, tried in tally.tried.items():
        print(f"{kind:32} {tried:9,} tried, {tally.valid[kind]:9,} valid")
    print(
        f"{tally.tried.total():,} mutations in {time.monotonic() - began:.0f} s, {tally.valid.total():,} valid, {tally.relayed:,} "
        f"of them relayed, by up to {tally.largest} bytes larger; {len(tally.problems)} problems"
    )
    print("\n".join(tally.problems[:20]))
    return 1 if tally.problems else 0


if __name__ == "__main__":
    sys.exit(main())
