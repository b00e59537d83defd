"""Where we answer otherwise than the server of 2016 did, case by case, each with its reason. Read by test_conformance.py.

The recorded cases are in tests/vectors/reference-golden.json; a row's key is a case's title. docs/PROTOCOL.md tells the same
to people. A case without a row must have the recorded status and, if that is a success, the recorded values.
"""

from typing import NamedTuple


class Deviation(NamedTuple):
    """Our answer to one recorded case. `values`: what differs from the recorded body, for successes on both sides."""

    status: int
    code: str
    reason: str
    values: dict[str, int] | None = None


_SIGNER_DOWN = "a payment that could not be settled is not taken; nothing changes, and the client may repeat the request"
_STORE_DOWN = "a failure of ours that may pass is a 503 with Retry-After, not a 500 with the internals in the status line"

DEVIATIONS: dict[str, Deviation] = {
    "fundingInfo, pubkey + trailing byte": Deviation(400, "invalid_pubkey", "trailing bytes make aliases of one key"),
    "fundingInfo, exp_time exponent form": Deviation(400, "invalid_exp_time", "exp_time has one spelling"),
    "fundingInfo, exp_time > 2^32": Deviation(400, "invalid_exp_time", "no silent reduction modulo 2^32"),
    "fundingInfo, exp_time block height": Deviation(
        400, "invalid_exp_time", "open refuses block heights; so nobody is told to fund such an address"
    ),
    "fundingInfo HEAD": Deviation(200, "", "whoever watches a server asks with HEAD; it is answered wherever GET is"),
    "fundingInfo OPTIONS": Deviation(200, "", "a browser asks so before any request with a Content-Type; every path is answered"),
    "open with exp_time in the past": Deviation(400, "exp_time_too_soon", "the payer could take everything back at once"),
    "open expiring in 1 h": Deviation(400, "exp_time_too_soon", "less than the settlement period and the minimum ahead"),
    "expired channel: pay": Deviation(404, "no_such_channel", "the channel was not opened, see above"),
    "open that exhausts the channel at once": Deviation(202, "", "it is settled at once; the original stored it and failed"),
    "pay, vout as float": Deviation(400, "invalid_vout", "an outpoint has one spelling"),
    "pay, txid uppercase": Deviation(
        200, "", "the payment before it was refused, so this is its first acceptance", {"value_received": 1}
    ),
    "pay, trailing byte after the payment": Deviation(400, "invalid_der", "bytes after the payment are not ignored"),
    "pay, high-S signature": Deviation(400, "high_s", "nodes do not relay it, so it could not be settled"),
    "pay, same payment low-S (replay of value, different signature bytes)": Deviation(
        200, "", "the two payments before it were refused, so this is its first acceptance", {"value_received": 2}
    ),
    "pay, lax DER (r padded with two zero bytes)": Deviation(400, "invalid_der", "nodes do not relay it (BIP 66)"),
    "pay, change_address valid but other (ignored?)": Deviation(
        200, "", "the payment before it was refused, so its value comes with this one", {"value_received": 2}
    ),
    "pay, body present": Deviation(400, "body_not_allowed", "a body is never meant, and smuggles requests past proxies"),
    "SigningService down: close third with latest payment": Deviation(503, "signer_unavailable", _SIGNER_DOWN),
    "third after the failed close (SettlementInProgress): pay": Deviation(
        503, "signer_unavailable", "the failed close left the channel open; " + _SIGNER_DOWN
    ),
    "third after the failed close: close again": Deviation(503, "signer_unavailable", _SIGNER_DOWN),
    "third after the failed close: open again": Deviation(503, "signer_unavailable", _SIGNER_DOWN),
    "SigningService down: pay on fourth works": Deviation(503, "signer_unavailable", _SIGNER_DOWN),
    "ChanStore down: pay on fourth": Deviation(503, "store_unavailable", _STORE_DOWN),
    "ChanStore down: open": Deviation(503, "store_unavailable", _STORE_DOWN),
    "ChanStore down: close": Deviation(503, "store_unavailable", _STORE_DOWN),
    "ChanStore and SigningService restarted (state reloaded from files): pay on fourth": Deviation(
        200, "", "the payment of 2 sent while the signer was down was not taken, so its value comes now", {"value_received": 5}
    ),
    "after restart: third still SettlementInProgress: close": Deviation(202, "", "a failed settlement is not final"),
    "snaplet built-in /admin/reload": Deviation(404, "no_such_route", "nothing can be administered over HTTP"),
}

CODES_INSTEAD = {
    # The original found these by checking the signature; we find them earlier, by their form.
    "pay, sighash byte 0x82 (NONE|ANYONECANPAY) instead of 0x83": "change_value_not_zero",
    "pay, sighash byte 0x01 (ALL)": "invalid_sighash_type",
    "pay, sighash byte 0x00": "invalid_sighash_type",
    "pay, sighash byte 0xff": "invalid_sighash_type",
}
"""Same status, but the code says something else than the recorded text."""

CHANNELS_REFUSED = {
    "open_short": "open_price_short",
    "open_zero": "open_price_short",
    "block_height_exp": "invalid_exp_time",
    "exp_499999999": "invalid_exp_time",
    "expired_channel": "exp_time_too_soon",
    "expires_in_1h": "exp_time_too_soon",
}
"""Recorded channels (tests/vectors/reference-channels.json) that are not opened, with the code; the others are."""
