"""Frames: how the processes talk, over a Unix socket or TCP on loopback. docs/ARCHITECTURE.md draws the format.

A frame is a 12-byte head and a payload, all integers little-endian:

    u32 length of the payload | u8 format version | u8 type | u16 zero | u32 request id | payload

A reply has the request's id and the request's type + 128 (`REPLY`); `ERROR` answers a request that was refused as a whole.
Request id 0 marks a message that nobody answers. The format cannot change; a new one takes a new version byte.
"""

import struct

FORMAT_VERSION = 1
REPLY = 128
ERROR = 255
_HEAD = struct.Struct("<IBBHI")
HEAD_SIZE = _HEAD.size


class FrameError(Exception):
    """Bytes that are no frame of ours: the connection that sent them must be closed."""


def encode_frame(kind: int, request_id: int, payload: bytes = b"") -> bytes:
    """Return one frame. kind: u8, request_id: u32."""
    return _HEAD.pack(len(payload), FORMAT_VERSION, kind, 0, request_id) + payload


class FrameReader:
    """Cuts a byte stream into frames. `payload_max` bounds what one frame may hold in memory."""

    def __init__(self, payload_max: int) -> None:
        self._payload_max = payload_max
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Add received bytes; return the frames they complete as (kind, request id, payload). Raises FrameError."""
        buffer = self._buffer
        buffer += data
        frames = []
        start, available = 0, len(buffer)
        while available - start >= HEAD_SIZE:
            size, version, kind, zero, request_id = _HEAD.unpack_from(buffer, start)
            if version != FORMAT_VERSION or zero or size > self._payload_max:
                raise FrameError("unknown frame version or frame too long")
            end = start + HEAD_SIZE + size
            if end > available:
                break
            frames.append((kind, request_id, bytes(buffer[start + HEAD_SIZE : end])))
            start = end
        if start:
            del buffer[:start]
        return frames
