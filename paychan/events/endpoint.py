"""An endpoint of webhooks: who is told, how far it has heard, and how that goes. A note in the store, so that it survives
whatever the stream survives, and the store knows what it must keep. Pure."""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .event import NUMBER_MAX, Type

PREFIX = "webhook/"
"""Of an endpoint's note, before its id."""

ENDPOINTS_MAX = 32
URL_SIZE_MAX = 2048
SECRET_PREFIX = "whsec_"
SECRET_SIZES = range(24, 65)
"""Bytes of a secret, as Standard Webhooks has them."""


@dataclass(frozen=True)
class Endpoint:
    """id: ours. secret: "whsec_" and base64. types: of the events that it is told, none: all. cursor: the number of the newest
    event that it need not be told any more. failing_since_at: since when the same event was not taken, 0: it was; attempts: how
    often, tried_at: when last, why: what came of it. revision: rises whenever an operator changes it: such a note is none that was
    written before. Times in unix seconds."""

    id: str
    url: str
    secret: str
    created_at: int
    cursor: int = 0
    types: tuple[str, ...] = ()
    is_enabled: bool = True
    failing_since_at: int = 0
    attempts: int = 0
    tried_at: int = 0
    why: str = ""
    revision: int = 0

    @property
    def name(self) -> str:
        """Its note's."""
        return PREFIX + self.id

    def wants(self, kind: str) -> bool:
        """Return whether it is told of events of a type."""
        return not self.types or kind in self.types

    def encode(self) -> bytes:
        """Return the note."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def parse(cls, note: bytes) -> "Endpoint":
        """Raises ValueError for what is no endpoint."""
        said = json.loads(note)
        if not isinstance(said, dict) or (said := {"revision": 0, **said}).keys() != cls.__dataclass_fields__.keys():
            raise ValueError("this is no endpoint")
        endpoint = cls(**{**said, "types": tuple(said["types"])})
        if type(endpoint.cursor) is not int or not 0 <= endpoint.cursor <= NUMBER_MAX:
            raise ValueError("this is no endpoint")
        return endpoint

    def shown(self) -> dict[str, Any]:
        """Return what its operator may see: all but the secret, and the revision, which says nothing."""
        return {name: value for name, value in asdict(self).items() if name not in ("secret", "revision")}


def heard(notes: Mapping[str, bytes]) -> int:
    """Return the number of the newest event that all enabled endpoints have heard."""
    return min((endpoint.cursor for endpoint in map(Endpoint.parse, notes.values()) if endpoint.is_enabled), default=NUMBER_MAX)


def key_of(secret: str) -> bytes:
    """Return a secret's bytes. Raises ValueError unless it is "whsec_" and the base64 of 24 to 64 bytes."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX).encode(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(SECRET_PREFIX) or len(key) not in SECRET_SIZES:
        raise ValueError('must be "whsec_" and the base64 of 24 to 64 bytes')
    return key


def make_secret(key: bytes) -> str:
    """Return the text of a secret."""
    return SECRET_PREFIX + base64.b64encode(key).decode()


def check_types(types: Iterable[object]) -> tuple[str, ...]:
    """Return types of events. Raises ValueError for what is none."""
    known = {str(kind) for kind in Type}
    checked = tuple(kind for kind in types if isinstance(kind, str) and kind in known)
    if len(checked) != len(list(types)):
        raise ValueError(f"must be of {', '.join(sorted(known))}")
    return checked
