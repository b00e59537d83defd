"""Frames: how the processes talk, over a Unix socket or TCP on loopback. docs/ARCHITECTURE.md draws the format.

A frame is a 12-byte head and a payload, all integers little-endian:

    u32 length of the payload | u8 format version | u8 type | u16 zero | u32 request id | payload

A reply has the request's id and the request's type + 128 (`REPLY`); `ERROR` answers a request that was refused as a whole.
Request id 0 marks a message that nobody answers. The format cannot change; a new one takes a new version byte.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memcpy


class FrameError(Exception):
    """Bytes that are no frame of ours: the connection that sent them must be closed."""


cdef bytes make_frame(int kind, uint32_t request_id, const unsigned char *payload, Py_ssize_t size):
    cdef bytes frame = PyBytes_FromStringAndSize(NULL, HEAD_SIZE + size)
    cdef unsigned char *head = <unsigned char *> PyBytes_AS_STRING(frame)
    cdef uint32_t length = <uint32_t> size
    memcpy(head, &length, 4)
    head[4] = FORMAT_VERSION
    head[5] = <unsigned char> kind
    head[6] = head[7] = 0
    memcpy(head + 8, &request_id, 4)
    memcpy(head + HEAD_SIZE, payload, size)
    return frame


def encode_frame(unsigned char kind, uint32_t request_id, bytes payload not None=b""):
    """Return one frame. kind: u8, request_id: u32."""
    return make_frame(kind, request_id, payload, len(payload))


cdef class FrameReader:
    """Cuts a byte stream into frames. `payload_max` bounds what one frame may hold in memory."""

    def __init__(self, Py_ssize_t payload_max):
        self._payload_max = payload_max
        self._rest, self._data = bytearray(), b""

    def feed(self, bytes data not None):
        """Add received bytes; return the frames they complete as (kind, request id, payload). Raises FrameError."""
        cdef Frame frame
        cdef list frames = []
        self.start(data)
        while self.next(&frame):
            frames.append((frame.kind, frame.request_id, frame.payload[:frame.size]))
        return frames

    cdef int start(self, bytes data) except -1:
        """Add received bytes, for compiled callers, who then take frames by `next` until there is none."""
        cdef Py_ssize_t before = len(self._rest)
        self._at = 0
        if not before:
            self._data = data
            return 0
        self._rest += data
        self._data = b""
        # A head that was whole before has been judged; then nothing is copied until the frame is whole too.
        if before < HEAD_SIZE or len(self._rest) >= HEAD_SIZE + _length(self._rest):
            self._data = bytes(self._rest)
            self._rest = bytearray()
        return 0

    cdef bint next(self, Frame *frame) except -1:
        """Take the next complete frame; False: there is none. Raises FrameError."""
        cdef const unsigned char *data = <const unsigned char *> PyBytes_AS_STRING(self._data) + self._at
        cdef Py_ssize_t size = len(self._data) - self._at
        cdef uint32_t length
        if size >= HEAD_SIZE:
            memcpy(&length, data, 4)
            if data[4] != FORMAT_VERSION or data[6] or data[7] or length > self._payload_max:
                raise FrameError("unknown frame version or frame too long")
            if size >= HEAD_SIZE + <Py_ssize_t> length:
                frame.kind = data[5]
                memcpy(&frame.request_id, data + 8, 4)
                frame.payload, frame.size = data + HEAD_SIZE, length
                self._at += HEAD_SIZE + <Py_ssize_t> length
                return True
        if size:
            self._rest += self._data[self._at:]
        self._data, self._at = b"", 0
        return False


cdef Py_ssize_t _length(bytearray rest) except -1:
    cdef uint32_t length
    memcpy(&length, <const unsigned char *> rest, 4)
    return length
