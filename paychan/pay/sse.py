"""Server-sent events as they come in (HTML Living Standard, section 9.2.6): bytes in, events out. Pure."""

from dataclasses import dataclass

from ..client import Refused

EVENT_BYTES_MAX = 1 << 20
"""Bytes of one event, and of what has not become one yet."""


@dataclass(frozen=True)
class Event:
    """One event. name: "message" if the server named none. raw: its bytes, as they came."""

    name: str
    data: str
    id: str = ""
    raw: bytes = b""


class EventReader:
    """Feed it the bytes of a stream in pieces of any size."""

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> list[Event]:
        """Return the events that end in this piece. Raises Refused for one that is too long."""
        self._rest += piece
        events = []
        while (line := self._line()) is not None:
            if line.strip(b"\r\n"):
                self._lines.append(line)
                self._size += len(line)
            elif self._lines:
                events.append(_event(self._lines, line))
                self._lines, self._size = [], 0
        if len(self._rest) + self._size > EVENT_BYTES_MAX:
            raise Refused("the server sends an event without end", "stream_ended")
        return events

    def _line(self) -> bytes | None:
        """Take a whole line, with its end, which is CR LF, LF or CR. A CR at the end may be half of one."""
        ends = [at for at in (self._rest.find(b"\n"), self._rest.find(b"\r")) if at >= 0]
        if not ends:
            return None
        end = min(ends)
        if self._rest[end : end + 1] == b"\r":
            if end + 1 == len(self._rest):
                return None
            end += self._rest[end + 1 : end + 2] == b"\n"
        line, self._rest = self._rest[: end + 1], self._rest[end + 1 :]
        return line


def _event(lines: list[bytes], end: bytes) -> Event:
    name, data, identity = "message", [], ""
    for line in lines:
        field, _, value = line.rstrip(b"\r\n").decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value or "message"
        elif field == "data":
            data.append(value)
        elif field == "id":
            identity = value
    return Event(name, "\n".join(data), identity, b"".join(lines) + end)
