"""The digest of a payment."""

from .bytes cimport distance, write_bytes, write_u32, write_u64
from .libcrypto cimport sha256d
from .payment cimport SIGHASH_CHANGE, SIGHASH_NO_CHANGE


cdef void sighash_for_change(
    const unsigned char *outpoint36, const unsigned char *redeem, unsigned char redeem_size,
    const unsigned char *change_script, unsigned char change_script_size,
    uint64_t change_value, unsigned char sighash_type, unsigned char *digest32
) noexcept nogil:
    """Write the 32-byte digest as libsecp256k1 takes it, never reversed.

    The caller has checked the sizes (REDEEM_SIZE_MAX, CHANGE_SCRIPT_SIZE_MAX) and that the type is one of the two. Version 1,
    sequence ffffffff, lock time 0; output 0 is the payer's change for SINGLE, there is none for NONE.
    """
    cdef unsigned char preimage[PREIMAGE_SIZE_MAX]
    cdef unsigned char *end = write_u32(preimage, 1)
    end[0] = 1
    end = write_bytes(end + 1, outpoint36, 36)
    end[0] = redeem_size
    end = write_bytes(end + 1, redeem, redeem_size)
    end = write_u32(end, 0xFFFFFFFF)
    if sighash_type == SIGHASH_CHANGE:
        end[0] = 1
        end = write_u64(end + 1, change_value)
        end[0] = change_script_size
        end = write_bytes(end + 1, change_script, change_script_size)
    else:
        end[0] = 0
        end += 1
    end = write_u32(end, 0)
    end = write_u32(end, sighash_type)
    sha256d(preimage, distance(preimage, end), digest32)


def payment_sighash(
    bytes outpoint not None, bytes redeem not None, bytes change_script not None, change_value, int sighash_type
):
    """Return the 32-byte digest that the payer signs. Raises ValueError for sizes, types and values that cannot be."""
    cdef unsigned char digest[32]
    if len(outpoint) != 36 or len(redeem) > REDEEM_SIZE_MAX or len(change_script) > CHANGE_SCRIPT_SIZE_MAX:
        raise ValueError("an outpoint has 36 bytes, a redeem script at most 81, a change script at most 34")
    if sighash_type not in (SIGHASH_CHANGE, SIGHASH_NO_CHANGE):
        raise ValueError("the sighash type must be 0x83 or 0x82")
    if type(change_value) is not int or not 0 <= change_value < 1 << 64:
        raise ValueError("the change value must be an integer of at most 64 bits")
    sighash_for_change(
        outpoint, redeem, <unsigned char> len(redeem), change_script, <unsigned char> len(change_script),
        change_value, <unsigned char> sighash_type, digest)
    return digest[:32]
