# A payment's bytes: canonical base64url, strict DER (BIP 66), low S, the two allowed sighash types and their values.

from libc.stdint cimport uint64_t

from .secp256k1 cimport Signature
from .status cimport Status

cdef enum:
    SIGHASH_CHANGE = 0x83      # SINGLE|ANYONECANPAY
    SIGHASH_NO_CHANGE = 0x82   # NONE|ANYONECANPAY
    DER_SIZE_MIN = 8
    DER_SIZE_MAX = 72
    PAYMENT_SIZE_MIN = 17      # 8 value, 8 signature, 1 sighash type
    PAYMENT_SIZE_MAX = 81      # 8 value, 72 signature, 1 sighash type
    TEXT_SIZE_MAX = 108        # 81 bytes in base64

cdef struct PaymentView:
    uint64_t change_value          # satoshi
    const unsigned char *der       # borrowed from the buffer that was parsed
    unsigned char der_size
    unsigned char sighash_type
    Signature signature            # parsed

cdef Py_ssize_t decode_canonical(const unsigned char *text, Py_ssize_t size, unsigned char *out) noexcept nogil
cdef Status decode_base64url(
    const unsigned char *text, Py_ssize_t size, unsigned char *out, Py_ssize_t *out_size) noexcept nogil
cdef bint is_strict_der(const unsigned char *der, Py_ssize_t size) noexcept nogil
cdef Status parse_payment(const unsigned char *raw, Py_ssize_t size, PaymentView *view) noexcept nogil
