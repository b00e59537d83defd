"""SHA-256 through libcrypto's function pointers, found where Python's hashlib found them."""

import ctypes
import ctypes.util

from libc.stdint cimport uintptr_t

# SHA256_CTX of OpenSSL 1.1 and 3: 112 bytes; the rest is room that costs nothing.
cdef struct Context:
    unsigned long long words[32]

ctypedef int (*InitFunction)(Context *context) noexcept nogil
ctypedef int (*UpdateFunction)(Context *context, const void *data, size_t size) noexcept nogil
ctypedef int (*FinalFunction)(unsigned char *digest32, Context *context) noexcept nogil

cdef InitFunction sha256_init
cdef UpdateFunction sha256_update
cdef FinalFunction sha256_final


def _library():
    """Return the libcrypto that this process uses already, else the system's. Raises ImportError."""
    try:
        import _hashlib
        library = ctypes.CDLL(_hashlib.__file__)
        library.SHA256_Init
        return library
    except (ImportError, AttributeError, OSError):
        path = ctypes.util.find_library("crypto")
    if path is None:
        raise ImportError("paychan needs OpenSSL's libcrypto")
    return ctypes.CDLL(path)


cdef uintptr_t _address(library, str name) except 0:
    return <uintptr_t> ctypes.cast(getattr(library, name), ctypes.c_void_p).value


_lib = _library()  # kept: the pointers below live as long as it does
sha256_init = <InitFunction> _address(_lib, "SHA256_Init")
sha256_update = <UpdateFunction> _address(_lib, "SHA256_Update")
sha256_final = <FinalFunction> _address(_lib, "SHA256_Final")


cdef void sha256(const unsigned char *data, size_t size, unsigned char *digest32) noexcept nogil:
    """Write the SHA-256 of `data`. These three functions cannot fail on valid pointers."""
    cdef Context context
    sha256_init(&context)
    sha256_update(&context, data, size)
    sha256_final(digest32, &context)


cdef void sha256d(const unsigned char *data, size_t size, unsigned char *digest32) noexcept nogil:
    """Write the double SHA-256 of `data` in internal byte order."""
    cdef Context context
    sha256_init(&context)
    sha256_update(&context, data, size)
    sha256_final(digest32, &context)
    sha256_init(&context)
    sha256_update(&context, digest32, 32)
    sha256_final(digest32, &context)
