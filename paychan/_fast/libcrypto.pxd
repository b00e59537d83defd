# SHA-256, once and twice, through the OpenSSL library that Python's own hashlib has loaded: no copy of it, no header of it.

cdef void sha256(const unsigned char *data, size_t size, unsigned char *digest32) noexcept nogil
cdef void sha256d(const unsigned char *data, size_t size, unsigned char *digest32) noexcept nogil
