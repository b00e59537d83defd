# The functions of libsecp256k1 that we call, reached through coincurve's copy of the library (its public cffi handle).

cdef struct PublicKey:
    unsigned char opaque[64]

cdef struct Signature:
    unsigned char opaque[64]

ctypedef int (*ParseKeyFunction)(const void *ctx, PublicKey *key, const unsigned char *data, size_t size) noexcept nogil
ctypedef int (*ParseDerFunction)(const void *ctx, Signature *sig, const unsigned char *data, size_t size) noexcept nogil
ctypedef int (*NormalizeFunction)(const void *ctx, Signature *out, const Signature *sig) noexcept nogil
ctypedef int (*VerifyFunction)(
    const void *ctx, const Signature *sig, const unsigned char *digest32, const PublicKey *key) noexcept nogil

cdef const void *context
cdef ParseKeyFunction parse_public_key    # 1: a point on the curve
cdef ParseDerFunction parse_der           # 1: parsed; laxer than BIP 66, so check strictness first
cdef NormalizeFunction normalize          # 1: S was high
cdef VerifyFunction verify                # 1: valid and low S
