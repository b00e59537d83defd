"""The wire form of the `Payment` HTTP scheme for method `bitcoin`, intent `session`: what sellers and payers say to each other.

docs/PAYMENT_SCHEME.md is its text, and what "section" means in this package. Pure: no socket, clock, file or environment; time is
an argument. Amounts are integers of satoshi here, and decimal texts on the wire.
"""

METHOD = "bitcoin"
INTENT = "session"
CURRENCY = "sat"
CHANNEL_TYPE = "p2sh-cltv-1"
"""Redeem script, sighash and payment form of docs/PROTOCOL.md."""
