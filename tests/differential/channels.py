"""Channels to try things on: one description for the judge and for the compiled table, and a payer that signs anything."""

import hashlib
import random
from dataclasses import dataclass

from coincurve import PrivateKey

from paychan._fast.channel import ChannelTable
from paychan.core.channel import ChannelState, ChannelTerms, Phase
from paychan.core.payment import Payment
from tests.reference import GROUP_ORDER, NONE_ANYONECANPAY, SINGLE_ANYONECANPAY, Account, Paid, encode_der, sighash

NOW = 1_600_000_000
SETTLEMENT_PERIOD = 6 * 3600
SHARD_COUNT = 256
SHORT_R_NONCE = (GROUP_ORDER + 1) // 2  # half of the generator: its x has 166 bits only, so the signature is short


def sign_digest(secret: int, digest: bytes, nonce: int, low_s: bool = True) -> tuple[int, int]:
    """Return (r, s) of an ECDSA signature made by hand, so that nonce and sign of S can be chosen."""
    point = PrivateKey.from_int(nonce).public_key.format()
    r = int.from_bytes(point[1:], "big") % GROUP_ORDER
    s = pow(nonce, -1, GROUP_ORDER) * (int.from_bytes(digest, "big") + r * secret) % GROUP_ORDER
    if (s > GROUP_ORDER // 2) == low_s:
        s = GROUP_ORDER - s
    return r, s


@dataclass(frozen=True)
class Sample:
    """A channel and the payer's secret key. `terms` is what paychan is given, `account` what the judge is given."""

    terms: ChannelTerms
    secret: int
    opening: Paid

    @property
    def account(self) -> Account:
        terms = self.terms
        txid, vout = terms.outpoint[:32], int.from_bytes(terms.outpoint[32:], "little")
        keys = terms.server_pubkey, terms.client_pubkey
        return Account(txid, vout, *keys, terms.exp_time, terms.change_script, self.opening, funding_value=terms.funding_value)

    @property
    def path(self) -> str:
        return f"/v1/channels/{self.terms.outpoint[:32][::-1].hex()}/{int.from_bytes(self.terms.outpoint[32:], 'little')}"

    def sign(
        self, change_value: int, sighash_type: int = SINGLE_ANYONECANPAY, nonce: int | None = None, low_s: bool = True
    ) -> Paid:
        """Return a payment truly signed for these values, whether or not they may be signed for."""
        digest = sighash(self.account, change_value, sighash_type)
        if nonce is None and low_s:
            signature = PrivateKey.from_int(self.secret).sign(digest, hasher=None)
        else:
            signature = encode_der(*sign_digest(self.secret, digest, nonce or 0xC0FFEE, low_s))
        return Paid(change_value, signature, sighash_type)

    def load(self, table: ChannelTable, phase: Phase = Phase.OPEN, newest: Paid | None = None) -> None:
        """Enter the channel into a table, with its opening payment or the given one; its funding output was found well."""
        newest = newest or self.opening
        payment = Payment(newest.change_value, newest.signature, newest.sighash_type)
        table.load(self.terms, ChannelState(phase, payment, bytes(32) if phase >= Phase.SIGNED else b""))
        table.mark_checked(self.terms.outpoint, table.chain_generation)


def make_sample(
    seed: int | str = 0,
    *,
    outpoint: bytes | None = None,
    exp_time: int = NOW + 30 * 24 * 3600,
    funding_value: int = 10_000_000,
    change_script: bytes | None = None,
    opening_change: int | None = None,
) -> Sample:
    """Return a channel made from `seed` alone, where nothing else is said."""
    client, server, txid = (hashlib.sha256(f"{name} {seed}".encode()).digest() for name in ("client", "server", "txid"))
    terms = ChannelTerms(
        outpoint=outpoint or txid + (1).to_bytes(4, "little"),
        server_pubkey=PrivateKey(server).public_key.format(),
        client_pubkey=PrivateKey(client).public_key.format(),
        exp_time=exp_time,
        funding_value=funding_value,
        change_script=change_script or b"\x76\xa9\x14" + client[:20] + b"\x88\xac",
        opened_at=NOW,
    )
    sample = Sample(terms, int.from_bytes(client, "big"), Paid(0, b"", 0))
    opening = sample.sign(funding_value if opening_change is None else opening_change)
    return Sample(terms, sample.secret, opening)


def random_sample(rng: random.Random) -> Sample:
    """Return a channel from the corners: lock times of four and five bytes, P2PKH and P2SH, extreme outputs and values."""
    vout = rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, rng.randrange(2**32), rng.randrange(8)])
    exp_time = rng.choice([rng.randrange(NOW + SETTLEMENT_PERIOD + 2, 2**32), 2**31 - 1, 2**31, 2**32 - 1])
    funding = rng.choice(
        [rng.randrange(701, 1400)] + [10_000_000, 2_100_000_000_000_000] * 3 + [rng.randrange(701, 2_100_000_000_000_001)] * 3
    )
    digest = rng.randbytes(20)
    script = rng.choice([b"\x76\xa9\x14" + digest + b"\x88\xac", b"\xa9\x14" + digest + b"\x87"])
    return make_sample(
        f"random {rng.getrandbits(64)}",
        outpoint=rng.randbytes(32) + vout.to_bytes(4, "little"),
        exp_time=exp_time,
        funding_value=funding,
        change_script=script,
        opening_change=rng.choice([funding, rng.randrange(700, funding + 1)]),
    )


def own_all(table: ChannelTable, shard_count: int = SHARD_COUNT, epoch: int = 1) -> ChannelTable:
    """Give a table every shard, and return it."""
    table.own([epoch] * shard_count)
    return table


def other_payment_type(sighash_type: int) -> int:
    """Return the other of the two allowed sighash types."""
    return SINGLE_ANYONECANPAY if sighash_type == NONE_ANYONECANPAY else NONE_ANYONECANPAY
