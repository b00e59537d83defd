"""Vectors for verifiers of signed receipts, in whatever language: `python -m tests.receipt_vectors` prints
tests/vectors/receipts.json.

The keys are made up and sign nothing else. Ed25519 signatures have no chance in them, so the same vectors come out each time.
"""

import base64
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

from joserfc import jws
from joserfc.jwk import OKPKey

from paychan.receipts.claims import ALGORITHM, TYPE, Claims, payment_hash, receipt_hash
from paychan.receipts.keys import public_set

CHANNEL = "ab" * 32 + ":0"
OTHER_CHANNEL = "cd" * 32 + ":17"
START = 1_790_000_000


def make_key(number: int) -> OKPKey:
    """Return a key that everybody knows."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    secret = bytes([number]) * 32
    public = Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
    d, x = (base64.urlsafe_b64encode(raw).rstrip(b"=").decode() for raw in (secret, public))
    return OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "d": d, "x": x})


KEY, STRANGER = make_key(1), make_key(2)


def sign(claims: Claims | bytes, key: OKPKey = KEY, **header: str) -> str:
    raw = claims if isinstance(claims, bytes) else claims.encode()
    whole = {"alg": ALGORITHM, "kid": key.thumbprint(), "typ": TYPE, **header}
    return jws.serialize_compact(whole, raw, key, algorithms=[whole["alg"]])


def purchases(count: int, channel: str = CHANNEL, amount: int = 5) -> list[Claims]:
    """Return so many purchases one after the other, not chained yet."""
    return [
        Claims(
            channel_id=channel,
            number=number,
            method="GET",
            resource=f"https://shop.example/news/{number}?page=1",
            amount=amount,
            accepted=1000 + amount * number,
            spent=1000 + amount * number,
            time=START + 10 * number,
            payment=payment_hash(b"payment %d" % number),
        )
        for number in range(1, count + 1)
    ]


def chained(rows: list[Claims], key: OKPKey = KEY) -> list[str]:
    lines: list[str] = []
    for claims in rows:
        lines.append(sign(replace(claims, previous=receipt_hash(lines[-1]) if lines else ""), key))
    return lines


def changed(line: str, part: int) -> str:
    """Return a receipt in one of whose parts a character is another one."""
    parts = line.split(".")
    text = parts[part]
    parts[part] = text[:10] + ("A" if text[10] != "A" else "B") + text[11:]
    return ".".join(parts)


def cases() -> dict[str, tuple[list[str], bool]]:
    """Return of each case the lines, and whether all is well."""
    rows = purchases(4)
    good = chained(rows)
    body = "sha-256=:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:"
    posted = [replace(rows[0], method="POST", body=body), replace(rows[1], payment="", resource="https://shop.example/größe")]
    fallen = [rows[0], replace(rows[1], accepted=1004, spent=1004, amount=4)]
    skipped = chained([rows[0], rows[1], rows[3]])
    returned = chained([rows[0], replace(rows[1], spent=rows[1].spent - 3)])
    twice = chained([rows[0], replace(rows[1], number=1)])
    older = chained([rows[0], replace(rows[1], time=START)])
    crossed = chained([rows[1], replace(rows[0], time=rows[1].time)])  # two at once: the later one was signed first
    other = chained(purchases(2, OTHER_CHANNEL))
    content = json.loads(rows[0].encode())
    return {
        "a chain": (good, True),
        "with a body, and bought from credit": (chained(posted), True),
        "empty lines between": ([good[0], "", *good[1:]], True),
        "two channels, mixed": ([good[0], other[0], good[1], other[1]], True),
        "its beginning is not there": (good[1:], True),
        "something was charged without a receipt": (skipped, True),
        "something was given back": (returned, True),
        "signed in another order than bought": (crossed, True),
        "no receipt": ([], False),
        "one is missing in the middle": ([good[0], good[1], good[3]], False),
        "two are swapped": ([good[0], good[2], good[1], good[3]], False),
        "one stands twice": ([good[0], good[1], good[1]], False),
        "another history after the first": (
            [*good[:2], chained([rows[0], replace(rows[2], resource="https://other.example/")])[1]],
            False,
        ),
        "it begins anew": ([good[0], sign(rows[1])], False),
        "a purchase twice": (twice, False),
        "the clock went back": (older, False),
        "what was paid fell": (chained(fallen), False),
        "a changed header": ([changed(good[0], 0)], False),
        "a changed claim": ([good[0], changed(good[1], 1)], False),
        "a changed signature": ([good[0], changed(good[1], 2)], False),
        "another key": (chained(rows, STRANGER), False),
        "another key under this one's name": ([sign(rows[0], STRANGER, kid=KEY.thumbprint())], False),
        "another type": ([sign(rows[0], typ="JWT")], False),
        "another algorithm": ([unsigned(rows[0])], False),
        "no JWS": (["not.a.receipt"], False),
        "no JSON": ([sign(b"{")], False),
        "another version": ([sign(json.dumps({**content, "v": 2}).encode())], False),
        "more spent than paid": ([sign(json.dumps({**content, "spent": "1006"}).encode())], False),
        "an amount that is a number": ([sign(json.dumps({**content, "amount": 5}).encode())], False),
        "a channel in capitals": ([sign(json.dumps({**content, "channelId": "AB" * 32 + ":0"}).encode())], False),
    }


def unsigned(claims: Claims) -> str:
    head = {"alg": "none", "kid": KEY.thumbprint(), "typ": TYPE}
    parts = (base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (json.dumps(head).encode(), claims.encode()))
    return f"{'.'.join(parts)}."


def vectors() -> dict[str, object]:
    """Return what stands in tests/vectors/receipts.json."""
    from paychan.receipts.keys import read_public
    from paychan.receipts.verify import examine

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "keys.json"
        path.write_text(json.dumps(public_set(KEY)))
        os.chmod(path, 0o644)
        keys = read_public(path)
    rows = []
    for name, (lines, is_good) in cases().items():
        verdict = examine(lines, keys)
        about = {"good": is_good, "verdict": verdict.word, "receipts": verdict.receipts, "amount": verdict.amount}
        rows.append({"case": name, "lines": lines, **about})
    return {"keys": public_set(KEY), "wellKnown": "/.well-known/payment-receipts.json", "cases": rows}


if __name__ == "__main__":
    print(json.dumps(vectors(), indent=1))
