"""Aim: one outpoint has one spelling, and the query is read as v1 reads it, but strictly. Method: each rule by hand against
`read_channel_request` and `pay`, aliases against the judge."""

import pytest

from paychan._fast.channel import ChannelTable, read_channel_request
from paychan._fast.request import PATH_SIZE_MAX, QUERY_SIZE_MAX
from paychan._fast.status import Status
from paychan.core.errors import Rejection
from paychan.core.outpoint import make_outpoint, parse_outpoint
from tests.differential.channels import NOW, SETTLEMENT_PERIOD, make_sample, own_all
from tests.reference import Judge, Refused, read_path

TXID_HEX = "00112233445566778899aabbccddeeff00112233445566778899aabbccddee0f"
PATH = f"/v1/channels/{TXID_HEX}/5"
OUTPOINT = make_outpoint(bytes.fromhex(TXID_HEX)[::-1], 5)
QUERY = "payment=QUJD"


def status_of(path=PATH, query=QUERY):
    return Status(read_channel_request(path, query)[0])


def test_request_is_read():
    assert read_channel_request(PATH, QUERY) == (0, OUTPOINT, b"ABC")


# --- the path ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("", Status.NO_SUCH_ROUTE),
        ("/", Status.NO_SUCH_ROUTE),
        ("/v1/channels", Status.NO_SUCH_ROUTE),
        ("/v1/channels/", Status.NO_SUCH_ROUTE),
        (f"/v1/channels/{TXID_HEX}", Status.NO_SUCH_ROUTE),
        (f"/v1/channels/{TXID_HEX}/", Status.NO_SUCH_ROUTE),
        (f"/v1/channels/{TXID_HEX}//5", Status.NO_SUCH_ROUTE),
        (f"/v2/channels/{TXID_HEX}/5", Status.NO_SUCH_ROUTE),
        (f"/V1/channels/{TXID_HEX}/5", Status.NO_SUCH_ROUTE),
        (f"//v1/channels/{TXID_HEX}/5", Status.NO_SUCH_ROUTE),
        ("/v1/channels//5", Status.INVALID_TXID),
        (f"/v1/channels/{TXID_HEX[1:]}/5", Status.INVALID_TXID),
        (f"/v1/channels/{TXID_HEX}0/5", Status.INVALID_TXID),
        (f"/v1/channels/{TXID_HEX[1:]}g/5", Status.INVALID_TXID),
        (f"/v1/channels/{TXID_HEX[1:]}é/5", Status.INVALID_TXID),
        (f"/v1/channels/0x{TXID_HEX[2:]}/5", Status.INVALID_TXID),
        (f"/v1/channels/ {TXID_HEX[1:]}/5", Status.INVALID_TXID),
        (f"{PATH}/", Status.OK),
        (f"{PATH}/further/segments", Status.OK),
        (f"{PATH}//", Status.OK),
    ],
)
def test_paths(path, status):
    assert status_of(path) == status
    try:
        read_path(path.encode())
        assert status == Status.OK
    except Refused as refused:
        assert refused.code == status.name.lower()


@pytest.mark.parametrize(
    "vout",
    [
        "00",
        "01",
        "+1",
        "-1",
        "-0",
        "1.0",
        "1e0",
        "0x1",
        " 1",
        "1 ",
        "1\n",
        "4294967296",
        "9999999999",
        "10000000000",
        "१",
        "%31",
    ]
    + ["18446744073709551617", "99999999999999999999"],
)
def test_aliases_of_an_index_are_refused(vout):
    assert status_of(f"/v1/channels/{TXID_HEX}/{vout}") == Status.INVALID_VOUT
    with pytest.raises(Rejection):
        parse_outpoint(TXID_HEX, vout)


@pytest.mark.parametrize("vout", ["0", "1", "9", "10", "2147483647", "2147483648", "4294967295"])
def test_index_reads_as_the_core_reads_it(vout):
    assert read_channel_request(f"/v1/channels/{TXID_HEX}/{vout}", QUERY)[1] == parse_outpoint(TXID_HEX, vout)


def test_both_cases_of_the_txid_are_one_channel():
    sample = make_sample("alias")
    table = own_all(ChannelTable(256, SETTLEMENT_PERIOD))
    sample.load(table)
    query = "payment=" + payment_text(sample.sign(9_000_000))
    head, txid, vout = sample.path.rsplit("/", 2)
    shouted = f"{head}/{txid.upper()}/{vout}"
    assert table.pay(shouted, query, NOW) == Status.ACCEPTED
    shard = table.shard
    assert table.pay(sample.path, query, NOW) == Status.REPLAYED
    assert table.shard == shard
    assert table.outpoint == sample.terms.outpoint


def payment_text(paid):
    import base64

    return base64.urlsafe_b64encode(paid.raw).decode()


def test_the_longest_path_and_one_more():
    longest = PATH + "/" + "x" * (PATH_SIZE_MAX - len(PATH) - 1)
    assert status_of(longest) == Status.OK
    assert status_of(longest + "x") == Status.REQUEST_TOO_LARGE
    assert status_of(longest[:-1] + "é") == Status.REQUEST_TOO_LARGE  # bytes count, not characters


# --- the query --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", Status.MISSING_PARAMETER),
        ("payment", Status.MISSING_PARAMETER),
        ("Payment=QUJD", Status.MISSING_PARAMETER),
        ("payments=QUJD", Status.MISSING_PARAMETER),
        ("paymen=QUJD", Status.MISSING_PARAMETER),
        (" payment=QUJD", Status.MISSING_PARAMETER),
        ("%70ayment=QUJD", Status.MISSING_PARAMETER),
        ("xpayment=QUJD", Status.MISSING_PARAMETER),
        ("change_address=QUJD", Status.MISSING_PARAMETER),
        ("payment=", Status.OK),  # an empty payment; it fails as a payment
        ("payment=QUJD", Status.OK),
        ("test=undefined&payment=QUJD", Status.OK),
        ("payment=QUJD;test=true", Status.OK),
        ("&&;payment=QUJD;;&", Status.OK),
        ("a;payment=QUJD", Status.OK),
        ("payment=QUJD&payment=QUJD", Status.REPEATED_PARAMETER),
        ("payment=QUJD;payment=QUJD", Status.REPEATED_PARAMETER),
        ("payment=&payment=", Status.REPEATED_PARAMETER),
        ("payment=QUJD&change_address=a&change_address=b", Status.REPEATED_PARAMETER),
        ("change_address=a&change_address=b", Status.REPEATED_PARAMETER),
        ("payment=QUJD&x=1&x=2", Status.OK),
        ("payment=QUJD&payment", Status.OK),
        ("payment=QUJD=", Status.INVALID_BASE64),
        ("payment==QUJD", Status.INVALID_BASE64),
    ],
)
def test_queries(query, status):
    assert status_of(query=query) == status


def test_escapes_are_resolved():
    for query in ("payment=%51%55%4A%44", "payment=Q%55JD", "payment=%51%55%4a%44", "payment=QUI%3d", "payment=QUI%3D"):
        status, _, raw = read_channel_request(PATH, query)
        assert status == 0
        assert raw in (b"ABC", b"AB")


@pytest.mark.parametrize("escape", ["%", "%5", "%5g", "%g5", "%%35", "% 5", "%-1", "%u0041", "QUJD%", "QUJD%4", "+", "QU+D"])
def test_bad_escapes_and_blanks_are_refused(escape):
    assert status_of(query="payment=" + escape) == Status.INVALID_BASE64
    assert status_of(query=f"payment={escape}&x=41") == Status.INVALID_BASE64  # never reads on into what follows


def test_a_payment_of_escapes_alone_fits_and_one_more_does_not():
    assert status_of(query="payment=" + "%41" * 108) == Status.OK
    assert status_of(query="payment=" + "%41" * 109) == Status.INVALID_PAYMENT
    assert status_of(query="payment=" + "A" * 109) == Status.INVALID_PAYMENT


def test_the_longest_query_and_one_more():
    longest = QUERY + "&" + "x" * (QUERY_SIZE_MAX - len(QUERY) - 1)
    assert status_of(query=longest) == Status.OK
    assert status_of(query=longest + "x") == Status.REQUEST_TOO_LARGE
    assert status_of(query="x" * 1_000_000) == Status.REQUEST_TOO_LARGE


def test_path_is_judged_before_query():
    assert status_of("/v1/channels/x/5", "") == Status.INVALID_TXID
    assert status_of("/nowhere", "x" * 4000) == Status.NO_SUCH_ROUTE
    assert status_of(f"/v1/channels/{TXID_HEX}/x", "payment=a&payment=b") == Status.INVALID_VOUT


@pytest.mark.parametrize("bad", [None, b"bytes", 5])
def test_wrong_types_raise(bad):
    for arguments in ((bad, QUERY), (PATH, bad)):
        with pytest.raises(TypeError):
            read_channel_request(*arguments)


def test_lone_surrogates_raise_and_change_nothing():
    with pytest.raises(UnicodeEncodeError):
        read_channel_request(PATH + "/\udc80", QUERY)
    with pytest.raises(UnicodeEncodeError):
        read_channel_request(PATH, QUERY + "&\udc80")


def test_change_address_is_left_to_the_caller_and_judged_after_the_payments_form():
    sample = make_sample("address")
    table = own_all(ChannelTable(256, SETTLEMENT_PERIOD))
    judge = Judge(SETTLEMENT_PERIOD)
    sample.load(table)
    judge.add(sample.account)
    text = payment_text(sample.sign(9_000_000))
    for query, ignore, status in (
        (f"payment={text}&change_address=x", False, Status.HAS_CHANGE_ADDRESS),
        ("payment=AAAA&change_address=x", False, Status.INVALID_PAYMENT),
        (f"change_address=&payment={text}", False, Status.HAS_CHANGE_ADDRESS),
        (f"change_address=&payment={text}", True, Status.ACCEPTED),
    ):
        assert judge.pay(sample.path, query, NOW, ignore).code == status.name.lower()
        assert table.pay(sample.path, query, NOW, ignore) == status
