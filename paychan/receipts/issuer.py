"""Signs receipts. The last ones of each channel stand in an SQLite file beside the key, so that the chain holds over restarts and
over all processes of a seller that share the key. A receipt is on disk before it is shown.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from joserfc import jws
from joserfc.jwk import OKPKey

from ..client.database import Database
from .claims import ALGORITHM, TYPE, Bought, Claims, payment_hash, receipt_hash
from .keys import public_set, read_key

BUSY_SECONDS = 10.0
KEPT = 8
"""Receipts of one channel that are kept, for who asks again: more than there are purchases that a channel remembers."""

_TABLE = """
CREATE TABLE IF NOT EXISTS receipts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    channel TEXT NOT NULL,
    number INTEGER NOT NULL,      -- the purchase's
    at INTEGER NOT NULL,          -- unix seconds; they never fall
    jws TEXT NOT NULL,
    UNIQUE (channel, number)
);
"""

_PRUNE = """
DELETE FROM receipts WHERE channel = ? AND id NOT IN (SELECT id FROM receipts WHERE channel = ? ORDER BY id DESC LIMIT ?)
"""


class Issuer:
    """Of one receipts key. Threads may share it; processes share the files."""

    def __init__(self, key_file: str | os.PathLike[str], origin: str = "", clock: Callable[[], float] = time.time) -> None:
        """key_file: as `paychan receipts key` makes it; KEY_FILE.db is made beside it. origin: SCHEME://HOST[:PORT], to stand
        before resources that are a path alone. Raises StateError."""
        path = Path(key_file)
        self._key: OKPKey = read_key(path)
        self._header = {"alg": ALGORITHM, "kid": self._key.thumbprint(), "typ": TYPE}
        self._origin, self._clock = origin, clock
        self._file = Database(path.with_name(f"{path.name}.db"), _TABLE, BUSY_SECONDS)

    @property
    def public_keys(self) -> dict[str, object]:
        """What is published at keys.WELL_KNOWN: a JWK set."""
        return public_set(self._key)

    def issue(self, bought: Bought) -> str:
        """Return the receipt of a purchase (JWS, compact), the next of its channel's chain; on disk before it is returned.

        Asked again for the same purchase, it is the same. It blocks for a sync of the disk. Raises StateError, ValueError.
        """
        channel, number = bought.channel_id, bought.number
        with self._file.changing() as db:
            known = db.execute("SELECT jws FROM receipts WHERE channel = ? AND number = ?", (channel, number)).fetchone()
            if known:
                return str(known[0])
            head = db.execute("SELECT jws, at FROM receipts WHERE channel = ? ORDER BY id DESC LIMIT 1", (channel,)).fetchone()
            at = max(int(self._clock()), head[1] if head else 0)
            text = self._sign(bought, at, receipt_hash(head[0]) if head else "")
            db.execute("INSERT INTO receipts (channel, number, at, jws) VALUES (?, ?, ?, ?)", (channel, number, at, text))
            db.execute(_PRUNE, (channel, channel, KEPT))
            return text

    def withdraw(self, channel_id: str, number: int) -> bool:
        """Take back a receipt that was not shown, as what it is about was not served. False: another one follows it already; then
        it must be shown, or the chain has a gap. Raises StateError."""
        with self._file.changing() as db:
            head = db.execute(
                "SELECT id, number FROM receipts WHERE channel = ? ORDER BY id DESC LIMIT 1", (channel_id,)
            ).fetchone()
            if head and head[1] == number:
                db.execute("DELETE FROM receipts WHERE id = ?", (head[0],))
                return True
            return db.execute("SELECT 1 FROM receipts WHERE channel = ? AND number = ?", (channel_id, number)).fetchone() is None

    def _sign(self, bought: Bought, at: int, previous: str) -> str:
        claims = Claims(
            channel_id=bought.channel_id,
            number=bought.number,
            method=bought.method,
            resource=self._whole(bought.resource),
            amount=bought.amount,
            accepted=bought.accepted,
            spent=bought.spent,
            time=at,
            body=bought.body,
            payment=payment_hash(bought.payment) if bought.payment else "",
            previous=previous,
        )
        return jws.serialize_compact(dict(self._header), claims.encode(), self._key, algorithms=[ALGORITHM])

    def _whole(self, resource: str) -> str:
        """Return the URI of a path, or of //HOST/PATH, where the origin says what stands before it."""
        if resource[:2] == "//" and self._origin:
            return f"{self._origin.partition(':')[0]}:{resource}"
        return self._origin + resource if resource[:1] == "/" else resource

    def close(self) -> None:
        """Close the file, if this process has opened it."""
        self._file.close()
