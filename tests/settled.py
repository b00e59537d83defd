"""Judges a broadcast settlement with nothing of ours but the terms: python-bitcoinlib's sighash, coincurve's verification."""

from bitcoin.core import CTransaction
from bitcoin.core.script import SIGHASH_ALL, CScript, SignatureHash
from coincurve import PublicKey

from paychan.core.channel import ChannelTerms
from paychan.core.network import TEST, decode_address

DESTINATION = decode_address(TEST, "mm9mm96b8bZRBacaAvY5MEeDd6HW46qFcY")
"""funds_destination_address of config/debug."""

FEE_MAX = 891 * 80
"""Satoshi: for the largest copy twice config/debug's rate of 40, and 8 times config/regtest's of 10, as near the expiry."""


def settled_change(raw: bytes, txid: str, terms: ChannelTerms, destination: bytes = DESTINATION) -> int:
    """Check that `raw` is a final settlement of this channel, validly signed by both; return the payer's change in satoshi.

    The outputs must be the payer's change (if it has any left), then the server's; the server must sign SIGHASH_ALL.
    """
    transaction = CTransaction.deserialize(raw)
    assert transaction.GetTxid()[::-1].hex() == txid
    assert (transaction.nVersion, transaction.nLockTime, len(transaction.vin)) == (1, 0, 1)
    spent = transaction.vin[0]
    assert spent.prevout.hash + spent.prevout.n.to_bytes(4, "little") == terms.outpoint
    assert spent.nSequence == 0xFFFFFFFF
    client_signature, server_signature, choice, redeem = list(CScript(spent.scriptSig))
    assert (choice, redeem) == (1, terms.redeem_script)
    assert server_signature[-1] == SIGHASH_ALL
    expected_type = 0x83 if len(transaction.vout) == 2 else 0x82
    assert client_signature[-1] == expected_type
    for signature, key in ((client_signature, terms.client_pubkey), (server_signature, terms.server_pubkey)):
        digest = SignatureHash(CScript(redeem), transaction, 0, signature[-1])
        assert PublicKey(key).verify(signature[:-1], digest, hasher=None)
    *change, servers = transaction.vout
    assert bytes(servers.scriptPubKey) == destination
    assert [bytes(output.scriptPubKey) for output in change] in ([], [terms.change_script])
    left = change[0].nValue if change else 0
    assert 0 < terms.funding_value - left - servers.nValue <= FEE_MAX, "the fee"
    return left
