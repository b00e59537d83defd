"""Pointers into coincurve's libsecp256k1. Importing this module fills them; nothing is called through cffi afterwards."""

from coincurve._libsecp256k1 import ffi as _ffi, lib as _lib
from coincurve.context import GLOBAL_CONTEXT as _global_context

from libc.stdint cimport uintptr_t


cdef uintptr_t _address(str name) except 0:
    return <uintptr_t> int(_ffi.cast("uintptr_t", _ffi.addressof(_lib, name)))


context = <const void *> <uintptr_t> int(_ffi.cast("uintptr_t", _global_context.ctx))
parse_public_key = <ParseKeyFunction> _address("secp256k1_ec_pubkey_parse")
parse_der = <ParseDerFunction> _address("secp256k1_ecdsa_signature_parse_der")
normalize = <NormalizeFunction> _address("secp256k1_ecdsa_signature_normalize")
verify = <VerifyFunction> _address("secp256k1_ecdsa_verify")
