"""How a purchase can fail besides the ways of `paychan.client`. In each case nothing more was signed than the ledger says."""

from ..client.errors import ClientError, Refused


class TermsRefused(Refused):
    """The server asks for what was not agreed, or for what this version does not know. Nothing was signed."""

    code = "terms_refused"


class BudgetExceeded(Refused):
    """The purse's budget does not allow this payment, and nobody who was asked did. Nothing was signed."""

    code = "budget_exceeded"


class FundingNeeded(ClientError):
    """A channel waits for its money. `name` of the channel, `address` and `amount` (satoshi) to pay to, `uri`: that as BIP 21."""

    code = "funding_needed"

    def __init__(self, detail: str, name: str, address: str, amount: int, uri: str) -> None:
        self.name, self.address, self.amount, self.uri = name, address, amount, uri
        super().__init__(detail)


class NotYetConfirmed(ClientError):
    """The channel is funded, and the server waits for more blocks. The same request works later."""

    code = "funding_unconfirmed"


class PurseBusy(ClientError):
    """All channels to this server were in use by other purchases for as long as one was waited for."""

    code = "purse_busy"
