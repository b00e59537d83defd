"""How a payer's operation can fail. Each error has a stable `code` and a `detail` of one line, without keys and payments."""


def printable(text: str) -> str:
    """Return text without what could move a terminal's cursor, or end a line."""
    return "".join(character if character.isprintable() else "?" for character in text)


class ClientError(Exception):
    """Base of all errors of `paychan.client`."""

    code = "client_error"

    def __init__(self, detail: str, code: str = "") -> None:
        self.code = code or type(self).code
        self.detail = printable(detail)
        super().__init__(f"{self.code}: {self.detail}")


class Refused(ClientError):
    """The server, or a rule of ours, said no for good. `code` is the server's own where it gave one."""

    code = "refused"


class InvalidAmount(Refused):
    """No payment can be signed for this amount; nothing was sent."""

    code = "invalid_amount"


class WrongNetwork(Refused):
    """The server is on another network than the channel was to be on. `networks`: the names of those it may be on."""

    code = "wrong_network"

    def __init__(self, detail: str, networks: tuple[str, ...]) -> None:
        self.networks = networks
        super().__init__(detail)


class ChannelUnknown(Refused):
    """The server does not know the channel. If it once did, `open` sends it the newest payment again."""

    code = "no_such_channel"


class OutcomeUnknown(ClientError):
    """No answer, or only 5xx, until the deadline. The payment may count; it is sent again before any other is signed."""

    code = "outcome_unknown"


class Unreachable(OutcomeUnknown):
    """No connection could be made: this run sent nothing. A signed payment is kept, and sent first the next time."""

    code = "unreachable"


class ChannelClosing(ClientError):
    """The channel takes no more payments; its settlement is under way, or due."""

    code = "channel_closing"


class ChannelClosed(ClientError):
    """The channel has been settled. A payment that this stopped did not count."""

    code = "channel_closed"


class ServerMisbehaved(ClientError):
    """The server broke the protocol or claimed other money than was signed. Nothing more is signed on this channel."""

    code = "server_misbehaved"


class StateBehindServer(ClientError):
    """The server holds a newer payment than the state file: an old copy of the file is in use. No money is lost by it."""

    code = "state_behind_server"


class ChannelBusy(ClientError):
    """Another process works on this channel; two would sign against each other."""

    code = "channel_busy"


class StateError(ClientError):
    """The state file or the key file is missing, damaged, readable by others, or cannot be written."""

    code = "state_error"


class ChannelMissing(StateError):
    """There is no state file at this place, so no channel. Nothing was made."""

    code = "channel_missing"


HOLDING = {kind.code: kind for kind in (ServerMisbehaved, StateBehindServer)}
"""Errors that stop all signing on a channel, until the payer resumes it."""
