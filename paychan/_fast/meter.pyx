"""Measurement and self-test only: nothing that serves requests imports this module.

`VerifyBatch` times libsecp256k1 alone, through the pointers that payments use; `add_ints` and `item` fail in the checked
build and only there, which is how the tests know which build they run on.
"""

from libc.stdlib cimport calloc, free

from .secp256k1 cimport PublicKey, Signature, context, parse_der, parse_public_key, verify

cdef struct Work:
    Signature signature
    PublicKey key
    unsigned char digest[32]


cdef class VerifyBatch:
    """Signatures that are parsed beforehand, so that `run` does nothing but verify."""

    cdef Work *_work
    cdef Py_ssize_t _count

    def __cinit__(self, list triples not None):
        """triples: (DER signature, 32-byte digest, 33-byte public key). Raises ValueError if one does not parse."""
        cdef bytes signature, digest, key
        cdef Work *work
        self._work = <Work *> calloc(len(triples) + 1, sizeof(Work))
        if self._work == NULL:
            raise MemoryError()
        for signature, digest, key in triples:
            work = &self._work[self._count]
            if len(digest) != 32 or len(key) != 33:
                raise ValueError("a digest has 32 bytes, a key 33")
            if not parse_der(context, &work.signature, signature, len(signature)):
                raise ValueError("a signature does not parse")
            if not parse_public_key(context, &work.key, key, 33):
                raise ValueError("a key does not parse")
            work.digest = digest
            self._count += 1

    def __dealloc__(self):
        free(self._work)

    def run(self):
        """Verify each once; return how many are valid."""
        cdef Py_ssize_t i, valid = 0
        for i in range(self._count):
            valid += verify(context, &self._work[i].signature, self._work[i].digest, &self._work[i].key)
        return valid


def add_ints(int a, int b):
    """Return the sum of two C ints; OverflowError in the checked build, a wrapped sum in release."""
    return a + b


def item(list items not None, Py_ssize_t index):
    """Return items[index]; IndexError in the checked build, undefined in release: call it with a bad index only there."""
    return items[index]
