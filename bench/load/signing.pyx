"""Keys and payments in bulk, so that a hundred thousand payments are signed before the clock starts: libsecp256k1 from C.

Nothing here is cryptography of our own, and nothing that is shipped signs this way: a payer's library is `paychan/core/sender.py`,
and a test holds both together.
"""

from coincurve._libsecp256k1 import ffi as _ffi, lib as _lib

from libc.stdint cimport uint64_t, uintptr_t

from paychan._fast.payment cimport SIGHASH_CHANGE
from paychan._fast.secp256k1 cimport PublicKey, Signature, context
from paychan._fast.sighash cimport CHANGE_SCRIPT_SIZE_MAX, REDEEM_SIZE_MAX, sighash_for_change

ctypedef int (*CreateKeyFunction)(const void *ctx, PublicKey *key, const unsigned char *secret32) noexcept nogil
ctypedef int (*SerializeKeyFunction)(
    const void *ctx, unsigned char *out, size_t *size, const PublicKey *key, unsigned int flags) noexcept nogil
ctypedef int (*SignFunction)(
    const void *ctx, Signature *out, const unsigned char *digest32, const unsigned char *secret32,
    const void *nonce_function, const void *nonce_data) noexcept nogil
ctypedef int (*SerializeDerFunction)(const void *ctx, unsigned char *out, size_t *size, const Signature *sig) noexcept nogil

cdef enum:
    COMPRESSED = 258               # SECP256K1_EC_COMPRESSED
    DER_SIZE_MAX = 72


cdef uintptr_t _address(str name) except 0:
    return <uintptr_t> int(_ffi.cast("uintptr_t", _ffi.addressof(_lib, name)))


cdef CreateKeyFunction create_key = <CreateKeyFunction> _address("secp256k1_ec_pubkey_create")
cdef SerializeKeyFunction serialize_key = <SerializeKeyFunction> _address("secp256k1_ec_pubkey_serialize")
cdef SignFunction sign = <SignFunction> _address("secp256k1_ecdsa_sign")
cdef SerializeDerFunction serialize_der = <SerializeDerFunction> _address("secp256k1_ecdsa_signature_serialize_der")


def public_key(bytes secret not None):
    """Return the 33-byte public key of a 32-byte secret."""
    cdef PublicKey key
    cdef unsigned char out[33]
    cdef size_t size = 33
    if len(secret) != 32 or not create_key(context, &key, secret):
        raise ValueError("this is no secret key")
    serialize_key(context, out, &size, &key, COMPRESSED)
    return out[:33]


def sign_payments(
    bytes secret not None, bytes outpoint not None, bytes redeem not None, bytes change_script not None,
    uint64_t first_value, Py_ssize_t count
):
    """Return `count` payments in binary form, change values `first_value`, and each next one satoshi less."""
    cdef unsigned char out[8 + DER_SIZE_MAX + 1]
    cdef const unsigned char *key = secret
    cdef const unsigned char *place = outpoint
    cdef const unsigned char *script = redeem
    cdef const unsigned char *change = change_script
    cdef unsigned char redeem_size, change_size
    cdef size_t size
    cdef Py_ssize_t i
    if len(secret) != 32 or len(outpoint) != 36 or len(redeem) > REDEEM_SIZE_MAX or len(change_script) > CHANGE_SCRIPT_SIZE_MAX:
        raise ValueError("a secret has 32 bytes, an outpoint 36, a redeem script at most 81, a change script at most 34")
    redeem_size, change_size = <unsigned char> len(redeem), <unsigned char> len(change_script)
    payments = []
    for i in range(count):
        with nogil:
            size = sign_one(key, place, script, redeem_size, change, change_size, first_value - <uint64_t> i, out)
        if size == 0:
            raise ValueError("this is no secret key")
        payments.append(out[:size])
    return payments


cdef size_t sign_one(
    const unsigned char *secret, const unsigned char *outpoint, const unsigned char *redeem, unsigned char redeem_size,
    const unsigned char *change, unsigned char change_size, uint64_t value, unsigned char *out
) noexcept nogil:
    """Write one payment's binary form; return its size, 0 if the secret is no key."""
    cdef unsigned char digest[32]
    cdef Signature signature
    cdef size_t size = DER_SIZE_MAX
    cdef int i
    sighash_for_change(outpoint, redeem, redeem_size, change, change_size, value, SIGHASH_CHANGE, digest)
    if not sign(context, &signature, digest, secret, NULL, NULL):
        return 0
    for i in range(8):
        out[i] = <unsigned char> (value >> (8 * i) & 0xFF)
    serialize_der(context, out + 8, &size, &signature)
    out[8 + size] = SIGHASH_CHANGE
    return 8 + size + 1
