"""Debug mode: a server that moves no money derives each channel's funding output from the payer's key. So does its payer."""

from ..chain.debug import DEBUG_FUNDING_VALUE, debug_outpoint
from ..core.network import TEST
from .errors import Refused
from .record import Agreement, Funding


def debug_funding(agreement: Agreement) -> Funding:
    """Return the output that nobody ever made. Raises Refused on any network but test: no server is in debug mode there."""
    if agreement.network is not TEST:
        raise Refused("debug mode is on network test only", "not_debug")
    return Funding(debug_outpoint(agreement.client_pubkey, agreement.exp_time), DEBUG_FUNDING_VALUE)
