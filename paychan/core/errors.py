"""Every way a request can be refused, as one table of stable codes.

A *rejection* is the request's fault: it travels as a `Rejection`, becomes a 4xx answer, and changes nothing.
*Unavailable* is ours and may pass: it becomes a 503, and the client repeats the same request.
Codes are public (clients match on them): a code is never renamed, renumbered or reused. The compiled hot path returns
the numbers (`paychan/_fast/status.pxd` gives them names); everything else uses the code strings.
This module knows the HTTP status a code hints at, and nothing else about HTTP.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Code(NamedTuple):
    """One refusal: `number` is what the compiled code returns, `status` the HTTP status hint."""

    number: int
    code: str
    status: int
    title: str


_TABLE = (
    # 400, found by parsing alone
    Code(20, "missing_parameter", 400, "A required parameter is missing"),
    Code(21, "repeated_parameter", 400, "A parameter is given more than once"),
    Code(22, "request_too_large", 400, "The request is longer than any valid one"),
    Code(23, "body_not_allowed", 400, "Requests of this protocol have no body"),
    Code(24, "invalid_txid", 400, "funding_txid must be 64 hexadecimal digits"),
    Code(25, "invalid_vout", 400, "funding_vout must be a plain decimal from 0 to 4294967295"),
    Code(26, "invalid_pubkey", 400, "client_pubkey must be a compressed public key, 66 hexadecimal digits"),
    Code(27, "pubkey_is_servers", 400, "client_pubkey must differ from the server's key"),
    Code(28, "invalid_exp_time", 400, "exp_time must be a plain integer from 500000000 to 4294967295"),
    Code(29, "exp_time_too_soon", 400, "exp_time is too close, or past"),
    Code(30, "exp_time_too_far", 400, "exp_time is too far ahead"),
    Code(31, "invalid_change_address", 400, "change_address is no address of this network"),
    Code(32, "invalid_base64", 400, "payment is not canonical base64url"),
    Code(33, "invalid_payment", 400, "payment has the wrong length or structure"),
    Code(34, "invalid_der", 400, "The signature is not strict DER"),
    Code(35, "high_s", 400, "The signature's S is above half the group order"),
    Code(36, "invalid_sighash_type", 400, "The sighash type must be 0x83 (change) or 0x82 (no change)"),
    Code(37, "change_value_not_zero", 400, "A payment with sighash type 0x82 must carry change value 0"),
    Code(38, "dust_change", 400, "The change value is below the dust limit of 700 satoshi"),
    Code(39, "change_value_range", 400, "The change value exceeds the funding value or all bitcoins there can be"),
    Code(40, "invalid_batch", 400, "The body is not a list of at most 1024 payments"),
    Code(41, "invalid_funding_value", 400, "funding_value must be a plain decimal from 1 to 2100000000000000"),
    # 400, found by looking at the channel
    Code(50, "out_of_order", 400, "The payment leaves the payer more than an earlier one"),
    Code(51, "bad_signature", 400, "The signature does not fit this payment on this channel"),
    Code(52, "open_price_short", 400, "The initial payment is below the open price"),
    Code(53, "not_newest_payment", 400, "Closing takes the channel's newest payment"),
    Code(54, "funding_not_found", 400, "No funding output pays to this channel's address"),
    Code(55, "funding_unconfirmed", 400, "The funding output has too few confirmations"),
    Code(56, "funding_immature", 400, "The funding output is a coinbase with fewer than 100 confirmations"),
    Code(57, "funding_too_large", 400, "The funding output exceeds what this server accepts"),
    Code(58, "not_settleable", 400, "The server could not settle a channel on this funding output"),
    # other statuses of v1
    Code(60, "no_such_channel", 404, "No such channel"),
    Code(61, "no_such_payment", 404, "No such payment resource: the channel is settled"),
    Code(62, "no_such_route", 404, "No such resource"),
    Code(63, "channel_exists", 409, "Channel already exists"),
    Code(64, "channel_settled", 409, "Channel already existed, but has been settled"),
    Code(65, "channel_closing", 410, "Channel is being closed"),
    Code(66, "channel_expiring", 410, "Channel is too close to its expiry to accept payments"),
    Code(67, "funding_spent", 410, "The funding output has been spent"),
    # HTTP that is not taken
    Code(70, "malformed_request", 400, "The request is not HTTP as RFC 9112 demands it"),
    Code(71, "request_timeout", 408, "The request did not come in time"),
    Code(72, "length_required", 411, "This resource takes a body with a Content-Length"),
    Code(73, "body_too_large", 413, "The body is longer than any valid one"),
    Code(74, "target_too_long", 414, "The request target is longer than any valid one"),
    Code(75, "unknown_expectation", 417, "Expect can only be 100-continue"),
    Code(76, "head_too_large", 431, "The request's headers are too many or too long"),
    Code(77, "transfer_encoding", 501, "No transfer coding is understood"),
    Code(78, "http_version", 505, "Only HTTP/1.1 and HTTP/1.0 are understood"),
    # 503: ours
    Code(80, "store_unavailable", 503, "The channel store cannot be reached; send the same request again"),
    Code(81, "signer_unavailable", 503, "The signer cannot be reached; send the same request again"),
    Code(82, "chain_unavailable", 503, "The block chain cannot be read; send the same request again"),
    Code(83, "owner_moved", 503, "The channel is moving between workers; send the same request again"),
    Code(84, "settlement_uneconomic", 503, "The channel is worth less than its settlement's fee now"),
    Code(85, "settlement_refused", 503, "The settlement could not be completed yet; it is retried"),
    Code(86, "overloaded", 503, "Too many requests are waiting; send the same request again"),
    Code(87, "funding_disappeared", 503, "The funding transaction is not confirmed any more; wait until it is again"),
    Code(88, "too_many_failures", 503, "Too many payments with bad signatures for this channel; send the same request again"),
    Code(89, "shard_stopped", 503, "The channel's accounts are being looked at; send the same request again later"),
    Code(90, "clock_doubtful", 503, "The server's clock and the chain contradict each other; send the same request again later"),
    Code(91, "too_much_unsettled", 503, "Too much waits to be settled; send the same request again later"),
    Code(92, "opens_frozen", 503, "No channels are opened for now; send the same request again later"),
    Code(93, "machine_drained", 503, "This machine takes no requests for now; send the same request again later"),
    # 429: too much from one address
    Code(95, "too_many_opens", 429, "Too many channels are being opened from this address; send the same request again later"),
    Code(96, "too_many_refused", 429, "Too many payments from this address were refused; send the same request again"),
    Code(97, "too_many_connections", 429, "Too many connections are open from this address"),
    # what a seller is told
    Code(100, "invalid_sale", 400, "The sale is malformed"),
    Code(101, "insufficient_credit", 402, "The channel's credit is below the amount"),
    Code(102, "purchase_differs", 409, "The key has bought for another amount"),
    Code(103, "no_such_purchase", 404, "No such purchase is remembered"),
    Code(104, "more_than_held", 409, "The purchase holds less than this amount"),
    Code(105, "too_many_reservations", 409, "As many reservations are open on the channel as there may be"),
    Code(110, "token_missing", 401, "The request shows no token"),
    Code(111, "token_unknown", 401, "The token is not known, or was revoked"),
    Code(112, "token_scope", 403, "The token is not for this"),
    # what a payer is told by who sells under the Payment scheme (docs/PAYMENT_SCHEME.md)
    Code(120, "payment_required", 402, "This costs something: answer the challenge"),
    Code(121, "malformed_credential", 402, "The credential is not base64url of the JSON that it should be"),
    Code(122, "unknown_action", 402, "action must be open, voucher or close"),
    Code(123, "missing_member", 402, "A member of the credential's payload is missing"),
    Code(124, "invalid_member", 402, "A member of the credential's payload makes no sense"),
    Code(125, "invalid_challenge", 402, "The challenge is not one that was made for this request"),
    Code(126, "payment_expired", 402, "The challenge has expired"),
    Code(127, "method_unsupported", 400, "Only method bitcoin with intent session is taken here"),
    Code(128, "two_credentials", 400, "The request has more than one Payment credential"),
    Code(129, "prepay_too_large", 402, "The payment runs further ahead of what is required than is taken"),
    Code(130, "delta_too_small", 402, "The payment is worth less than is taken at once"),
    Code(131, "amount_exceeds_deposit", 402, "The channel's funding value does not reach for this"),
    Code(132, "already_served", 409, "This payment has bought the answer before, which was not kept"),
    Code(133, "payment_forbidden", 403, "Paid or not, this is not for the one who asks"),
    # what an operator is told (docs/OPERATOR_API.md)
    Code(140, "invalid_command", 400, "The body does not say what is to be done"),
    Code(141, "limit_looser", 409, "The limit is looser than server.toml has it"),
    Code(142, "limits_contradict", 409, "The limits contradict each other"),
    Code(143, "no_such_worker", 404, "No such worker runs here"),
    Code(144, "no_other_machine", 409, "No other machine would settle what is due: to stop a machine alone, stop its server"),
    Code(145, "worker_too_young", 503, "The worker was started a moment ago; send the same request again later"),
    Code(146, "counts_unavailable", 503, "What is counted cannot be read; send the same request again"),
    Code(147, "steering_unavailable", 503, "What was asked for could not be kept; nothing changed, send the same request again"),
    Code(148, "no_worker_answers", 503, "No worker of this machine answers; send the same request again"),
    Code(155, "invalid_query", 400, "The query asks for what there is not"),
    Code(156, "events_gone", 410, "Events after this one are kept no more"),
)

OPERATORS_FROM = 140
"""From this number on codes are told to operators alone."""

BY_CODE = {row.code: row for row in _TABLE}
BY_NUMBER = {row.number: row for row in _TABLE}
if len(BY_CODE) != len(_TABLE) or len(BY_NUMBER) != len(_TABLE):
    raise AssertionError("a rejection code or number is used twice")


class PaychanError(Exception):
    """Base of our errors: `code` is a key of `BY_CODE`, `parameter` names the guilty request parameter, if one is.

    `detail` is meant for the client: it holds no key, no payment and none of the client's raw bytes. `figures`: what programs want
    to know of it, by name; satoshi.
    """

    def __init__(self, code: str, detail: str = "", parameter: str = "", figures: Mapping[str, int] | None = None) -> None:
        self.row = BY_CODE[code]
        self.figures = figures or {}
        self.detail = detail or self.row.title
        self.parameter = parameter
        super().__init__(f"{code}: {self.detail}")

    @property
    def code(self) -> str:
        return self.row.code


class Rejection(PaychanError):
    """The request is at fault; nothing was changed. The same request will be refused again."""


class Unavailable(PaychanError):
    """We cannot answer now; whether the request took effect may be unknown. The same request may be sent again."""


def held() -> Unavailable:
    """Return what a payer is told where its seller is told `too_many_reservations`: most likely of requests that were killed, whose
    time will be over."""
    return Unavailable("overloaded", "What the channel has is held for requests that are not finished; send it again later")


class ConfigError(Exception):
    """A configuration that must not run. `problems` are lines that name file and key; `str()` is the first of them.

    config: what could be read of it all the same, to be held against the other files; it must not run either.
    """

    def __init__(self, *problems: str, config: Any = None) -> None:
        super().__init__(problems[0])
        self.problems = problems
        self.config = config
