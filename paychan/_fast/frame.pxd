# Frames: how the processes talk. See frame.pyx for the format.

from libc.stdint cimport uint32_t

cpdef enum:
    FORMAT_VERSION = 1
    REPLY = 128       # added to a request's type
    ERROR = 255       # type of the answer to a request that was refused as a whole
    HEAD_SIZE = 12    # bytes

# One frame, borrowed from the reader until its next `feed` or `start`.
cdef struct Frame:
    int kind
    uint32_t request_id
    const unsigned char *payload
    Py_ssize_t size

cdef bytes make_frame(int kind, uint32_t request_id, const unsigned char *payload, Py_ssize_t size)

cdef class FrameReader:
    cdef Py_ssize_t _payload_max
    cdef bytearray _rest          # of a frame that is not complete
    cdef bytes _data
    cdef Py_ssize_t _at

    cdef int start(self, bytes data) except -1
    cdef bint next(self, Frame *frame) except -1
