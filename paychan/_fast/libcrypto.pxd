# Double SHA-256 through the OpenSSL library that Python's own hashlib has loaded: no copy of it, no header of it.

cdef void sha256d(const unsigned char *data, size_t size, unsigned char *digest32) noexcept nogil
