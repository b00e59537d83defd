"""Messages about events and notes between the store and its clients, as pure codecs; store_messages.py has the others.

A *note* is a small named record that is replaced on condition: only by whoever knows what it says. What was told of by somebody
else than the store (up to which expiry, whether the chain is trusted) is kept in one, and the events that go with the change are
written with it: told once, whoever dies in between. So are the endpoints of webhooks, and how far each has heard.
"""

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from ..events.event import NUMBER_MAX, TOLD, Event
from .store_messages import MessageError

EVENTS_MAX = 500
"""Events in one answer."""

NAME_SIZE_MAX = 64
NOTE_SIZE_MAX = 8192
NOTES_MAX = 256
"""Of one prefix: what an answer holds."""

TOLD_MAX = 128
"""Events with one note."""

_NOTHING = 0xFFFFFFFF
_ASK = struct.Struct("<QI")
_STREAM = struct.Struct("<QQ?")
_EVENT = struct.Struct("<QI")
_SIZE = struct.Struct("<I")


class Stream(NamedTuple):
    """Events after a number, in order. oldest, newest: the numbers of the first and the last that are kept; 0: there is none.
    is_ours: whether the store that answers is the one, of all that are active, beside which webhooks are delivered."""

    oldest: int
    newest: int
    is_ours: bool
    events: list[tuple[int, bytes]]


def encode_after(after: int, limit: int) -> bytes:
    """Return EVENTS: u64 number after which to begin, u32 limit."""
    return _ASK.pack(after, limit)


def decode_after(payload: bytes) -> tuple[int, int]:
    """Raises MessageError."""
    if len(payload) != _ASK.size:
        raise MessageError("EVENTS has a wrong length")
    after, limit = _ASK.unpack(payload)
    if after > NUMBER_MAX or not 1 <= limit <= EVENTS_MAX:
        raise MessageError("EVENTS asks for a number or a limit that cannot be")
    return after, limit


def encode_stream(stream: Stream) -> bytes:
    """Return the answer to EVENTS: u64 oldest, u64 newest, u8 is ours; each event: u64 number, u32 length, body."""
    parts = [_STREAM.pack(stream.oldest, stream.newest, stream.is_ours)]
    for number, body in stream.events:
        parts += (_EVENT.pack(number, len(body)), body)
    return b"".join(parts)


def decode_stream(payload: bytes) -> Stream:
    """Raises MessageError."""
    if len(payload) < _STREAM.size:
        raise MessageError("the answer to EVENTS is too short")
    oldest, newest, is_ours = _STREAM.unpack_from(payload)
    events, at = [], _STREAM.size
    while at < len(payload):
        if len(payload) - at < _EVENT.size:
            raise MessageError("the answer to EVENTS is too short")
        number, size = _EVENT.unpack_from(payload, at)
        at += _EVENT.size + size
        events.append((number, payload[at - size : at]))
    if at != len(payload):
        raise MessageError("the answer to EVENTS has a wrong length")
    return Stream(oldest, newest, is_ours, events)


@dataclass(frozen=True)
class NoteChange:
    """Ask to replace a note, and to write events with it. expected: what it says now, None: there is none. value: None removes
    it."""

    name: str
    expected: bytes | None
    value: bytes | None
    events: list[Event] = field(default_factory=list)

    def encode(self) -> bytes:
        """Return NOTE: each of name, expected, value: u32 length (2^32 - 1: None) and bytes; the events so, too."""
        bodies = [event.encode() for event in self.events]
        return b"".join(map(_sized, [self.name.encode(), self.expected, self.value, *bodies]))

    @classmethod
    def decode(cls, payload: bytes) -> "NoteChange":
        """Raises MessageError, also for events that a client may not tell."""
        parts = _split(payload)
        if len(parts) < 3:
            raise MessageError("NOTE is too short")
        raw, expected, value, *bodies = parts
        try:
            name, events = (raw or b"").decode("ascii"), [Event.parse(body or b"") for body in bodies]
        except ValueError as error:
            raise MessageError(f"NOTE: {error}") from None
        if not 0 < len(name) <= NAME_SIZE_MAX or max(len(expected or b""), len(value or b"")) > NOTE_SIZE_MAX:
            raise MessageError("NOTE has a wrong size")
        if len(events) > TOLD_MAX or any(event.type not in TOLD for event in events):
            raise MessageError("NOTE tells of what only the store tells")
        return cls(name, expected, value, events)


def encode_note_reply(is_done: bool, value: bytes | None) -> bytes:
    """Return the answer to NOTE: u8 whether it was done; what the note says now, as in NOTE."""
    return bytes((is_done,)) + _sized(value)


def decode_note_reply(payload: bytes) -> tuple[bool, bytes | None]:
    """Raises MessageError."""
    parts = _split(payload[1:])
    if not payload or len(parts) != 1:
        raise MessageError("the answer to NOTE has a wrong length")
    return bool(payload[0]), parts[0]


def check_prefix(payload: bytes) -> str:
    """Return what NOTES asks for: all notes whose name begins so. Raises MessageError."""
    if not 0 < len(payload) <= NAME_SIZE_MAX or not payload.isascii():
        raise MessageError("NOTES takes the beginning of a name")
    return payload.decode()


def encode_notes(notes: dict[str, bytes]) -> bytes:
    """Return the answer to NOTES: names and values in turn, each u32 length and bytes."""
    return b"".join(_sized(name.encode()) + _sized(value) for name, value in notes.items())


def decode_notes(payload: bytes) -> dict[str, bytes]:
    """Raises MessageError."""
    parts = _split(payload)
    if len(parts) % 2:
        raise MessageError("the answer to NOTES has a wrong length")
    return {(name or b"").decode("ascii", "replace"): value or b"" for name, value in zip(parts[::2], parts[1::2], strict=True)}


def _sized(part: bytes | None) -> bytes:
    return _SIZE.pack(_NOTHING) if part is None else _SIZE.pack(len(part)) + part


def _split(payload: bytes) -> list[bytes | None]:
    parts: list[bytes | None] = []
    at = 0
    while at < len(payload):
        if len(payload) - at < _SIZE.size:
            raise MessageError("a message is too short")
        (size,) = _SIZE.unpack_from(payload, at)
        at += _SIZE.size
        if size == _NOTHING:
            parts.append(None)
            continue
        if len(payload) - at < size:
            raise MessageError("a message is too short")
        parts.append(payload[at : at + size])
        at += size
    return parts
