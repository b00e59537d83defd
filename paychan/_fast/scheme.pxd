# A voucher's credential in its plain form, read.

from libc.stdint cimport uint64_t

from .payment cimport PAYMENT_SIZE_MAX

cdef enum:
    TEXT_MAX = 8192          # CREDENTIAL_BYTES_MAX of paychan/mpp/credential.py

cdef struct Voucher:
    unsigned char buffer[TEXT_MAX]         # the JSON; what follows points into it
    const unsigned char *challenge         # its JSON, not judged
    Py_ssize_t challenge_size
    const unsigned char *channel           # the channel's name, as it stands there
    Py_ssize_t channel_size
    const unsigned char *payment_text      # canonical base64url
    Py_ssize_t payment_text_size
    unsigned char outpoint[36]
    unsigned char payment[PAYMENT_SIZE_MAX]
    Py_ssize_t payment_size
    uint64_t change_value                  # satoshi

cdef bint parse_voucher(const unsigned char *text, Py_ssize_t size, Voucher *voucher) noexcept nogil
