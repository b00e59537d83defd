"""Aim: nothing that costs is had for less by spelling it in another way. Method: tables of spellings, each with what an upstream
is known to make of it; and a search over made-up paths against a lenient upstream that is written apart from the gateway's
rules."""

import itertools
import re
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paychan.gateway.refusals import Refused
from paychan.gateway.routes import RouteTable
from paychan.gateway.targets import check_host, check_path, encode_path
from tests.unit.gateway.making import routes


def found(table, path, method="GET", host="h"):
    """Return the price that a request would pay, or the code of its refusal."""
    try:
        route = table.find(host, check_path(unquote(path, errors="replace")), method)
    except Refused as refused:
        return refused.code
    return route.price.amount if route.price else 0


@pytest.fixture
def table(tmp_path):
    return RouteTable(
        routes(
            tmp_path,
            '"/v1/reports" | price = 5',
            '"/v1/reports/*" | price = 6 | methods = ["GET"]',
            '"/v1/*/photo" | price = 7',
            '"/premium/" | price = 8',
            '"/report.php" | price = 9',
            '"/" | free = true',
            '"/*" | free = true',
        )
    )


@pytest.mark.parametrize(
    "path, expected",
    [
        ("/", 0),
        ("/v1/reports", 5),
        ("/v1/reports?x=1".partition("?")[0], 5),
        ("/v1/reports/2026", 6),
        ("/v1/reports/2026/11", 6),
        ("/v1/bob/photo", 7),
        ("/v1/bob/a/photo", 0),
        ("/premium/", 8),
        ("/style.css", 0),
        ("/a/b/c", 0),
        ("/caf%C3%A9", 0),
        ("/a%20b", 0),
        ("/a+b@c,d=e:f", 0),
    ],
)
def test_plain_paths(table, path, expected):
    assert found(table, path) == expected


AMBIGUOUS = {
    "//v1/reports": "collapsed by nginx, Apache, Go",
    "/v1//reports": "the same",
    "/v1/./reports": "RFC 3986",
    "/x/../v1/reports": "RFC 3986",
    "/x/%2e%2e/v1/reports": "decoded first",
    "/x/..%2fv1/reports": "decoded first",
    "/x/.%2e/v1/reports": "decoded first",
    "/v1/reports/..": "RFC 3986",
    "/%2e/v1/reports": "decoded first",
    "/v1%252freports": "decoded twice",
    "/v1/%2572eports": "decoded twice",
    "/v1/reports%3fx": "decoded twice",
    "/v1/reports%23": "decoded twice",
    "/v1/reports;a=b": "Tomcat, Jetty",
    "/v1;/reports": "Tomcat, Jetty",
    "/v1%3b/reports": "Tomcat, Jetty",
    "/v1/reports.": "Windows",
    "/v1/reports%20": "Windows",
    "/v1./reports": "Windows",
    "/v1\\reports": "IIS",
    "/v1%5creports": "IIS",
    "/x\\..\\v1/reports": "IIS",
    "/v1/reports::$DATA": "NTFS",
    "/v1/reports%00": "C strings",
    "/v1/reports%0a": "regular expressions' $",
    "/v1/reports%ff": "no UTF-8",
    "/v1/reports%c0%ae": "overlong UTF-8",
    "/v1%EF%BC%8Freports": "U+FF0F, composed",
    "/v1/reports%E2%80%8B": "U+200B, not seen",
    "/v1/reports%C2%AD": "U+00AD, not seen",
    "/V1/Reports": "Express, IIS",
    "/v1/REPORTS": "the same",
    "/v1/%EF%BD%92eports": "U+FF52, composed",
    "/v1/report%C5%BF": "U+017F is an s to who ignores case",
    "/V1/reports/2026": "Express, IIS",
    "/v1/reports.json": "Rails, Django REST framework",
    "/v1/reports.html": "the same",
    "/premium": "a redirect inside, or none",
    "/premium/index.html": "nginx, Apache",
    "/premium/INDEX.HTM": "the same",
    "/premium/default.aspx": "IIS",
    "/report.php/x": "PHP, CGI, WSGI",
    "/report.php/x/style.css": "the same",
    "/Report.php": "Windows",
    "/v1/bob/photo.jpg": "Rails",
    "/v1/bob/photo/": "Express, Django",
    "*": "of OPTIONS",
    "": "no path",
}


@pytest.mark.parametrize("path", AMBIGUOUS, ids=lambda path: f"{path} ({AMBIGUOUS[path]})")
def test_other_spellings_of_what_costs_are_refused(table, path):
    assert found(table, path) == "ambiguous_target"


def test_an_encoded_slash_is_a_slash_here_and_is_sent_as_one(table):
    assert found(table, "/v1%2Freports") == 5
    assert encode_path(check_path(unquote("/v1%2Freports"))) == "/v1/reports"


def test_where_all_costs_the_same_any_spelling_that_is_clear_will_do(tmp_path):
    table = RouteTable(routes(tmp_path, '"/v1/*" | price = 5', '"/*" | price = 5'))
    assert found(table, "/V1/Reports.json") == 5


def test_a_path_that_is_named_in_full_is_that_route(tmp_path):
    table = RouteTable(routes(tmp_path, '"/report" | price = 5', '"/report.css" | free = true', '"/*" | free = true'))
    assert (found(table, "/report.css"), found(table, "/report"), found(table, "/report.json")) == (0, 5, "ambiguous_target")


def test_a_free_path_does_not_cover_what_others_would_charge_for(tmp_path):
    table = RouteTable(routes(tmp_path, '"/public/*" | free = true', '"/*" | price = 5'))
    assert (found(table, "/public/x"), found(table, "/PUBLIC/x"), found(table, "/other")) == (0, 5, 5)


def test_what_is_free_in_any_folder_is_not_free_as_a_scripts_argument(tmp_path):
    table = RouteTable(routes(tmp_path, '"/img/*/thumb" | free = true', '"/img/*" | price = 5'))
    paths = ("/img/a/thumb", "/img/a", "/img/a.php/thumb", "/img/v1.0/thumb")
    assert [found(table, path) for path in paths] == [0, 5, "ambiguous_target", 0]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PROPFIND", "FOO"])
def test_another_method_does_not_fall_through_to_what_is_free(table, method):
    assert found(table, "/v1/reports/2026", method) == "method_not_allowed"
    assert found(table, "/V1/reports/2026", method) == "ambiguous_target"


def test_head_goes_where_get_does(table):
    assert found(table, "/v1/reports/2026", "HEAD") == 6


def test_methods_of_one_path_may_cost_differently(tmp_path):
    paid, free = '"/a" | methods = ["POST"] | price = 5', '"/a" | methods = ["GET"] | free = true'
    table = RouteTable(routes(tmp_path, paid, free))
    assert [found(table, "/a", method) for method in ("POST", "GET", "PUT")] == [5, 0, "method_not_allowed"]


def test_order_in_the_file_does_not_matter(tmp_path):
    lines = ('"/*" | free = true', '"/a/*" | price = 5', '"/a/b" | price = 6', '"/a/*/c" | price = 7')
    for order in itertools.permutations(lines):
        table = RouteTable(routes(tmp_path, *order))
        assert [found(table, path) for path in ("/x", "/a/x", "/a/b", "/a/b/c", "/a/x/y")] == [0, 5, 6, 7, 5]


def test_hosts(tmp_path):
    lines = ['"/*" | host = "a.example" | price = 5', '"/*" | host = "*.b.example" | price = 6']
    lines.append('"/*" | host = "c.b.example" | free = true')
    table = RouteTable(routes(tmp_path, *lines))
    by_host = {"a.example": 5, "x.b.example": 6, "x.y.b.example": 6, "c.b.example": 0, "b.example": "no_such_route"}
    assert {host: found(table, "/x", host=host) for host in by_host} == by_host


@pytest.mark.parametrize(
    "authority, hosts, expected",
    [
        (None, ["A.Example:80"], "a.example"),
        (None, ["a.example."], "a.example"),
        (None, ["[::1]:80"], "[::1]"),
        ("a.example", ["A.example:80"], "a.example"),
        ("b.example", ["a.example"], None),
        (None, [], None),
        (None, ["a", "a"], None),
        (None, ["a/b"], None),
        (None, ["a@b"], None),
        (None, [""], None),
        (None, ["a b"], None),
    ],
)
def test_a_request_has_one_host(authority, hosts, expected):
    try:
        assert check_host(authority, hosts)[0] == expected
    except Refused as refused:
        assert expected is None and refused.code == "malformed_request"


# --- a lenient upstream, written apart from the rules of the gateway ---

PIECES = ["v1", "V1", "reports", "Reports", "reports.json", "bob", "photo", "photo.PNG", "premium", "index.html", "default.asp"]
PIECES += ["report.php", "", ".", "..", "%2e%2e", "x", "reports;a", "reports.", "report%73", "%2572eports", "v1%2Freports"]
PIECES += ["v1\\reports", "photo%00"]
PATHS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))

LENIENT = [
    lambda path: path.lower(),
    lambda path: unquote(path),
    lambda path: path.replace("\\", "/"),
    lambda path: re.sub(r";[^/]*", "", path),
    lambda path: re.sub(r"/+", "/", path),
    lambda path: re.sub(r"/[^/]+/\.\.(?=/|$)", "", path.replace("/./", "/")),
    lambda path: path.rstrip("/") or "/",
    lambda path: path + "/",
    lambda path: re.sub(r"[. \0]+(?=/|$)", "", path),
    lambda path: re.sub(r"\.\w+$", "", path),
    lambda path: re.sub(r"/(index|default)\.\w+$", "/", path),
    lambda path: re.sub(r"(\.php)/.*", r"\1", path),
]

PAID_AT = {r"/v1/reports": 5, r"/v1/reports/.*": 6, r"/v1/(?!reports/)[^/]+/photo": 7, r"/premium/": 8, r"/report\.php": 9}
"""`/v1/reports/photo` fits two of them; the nearer counts."""


@settings(max_examples=400, deadline=None)
@given(PATHS, st.lists(st.sampled_from(LENIENT), max_size=3))
def test_no_upstream_serves_for_nothing_what_has_a_price(path, habits):
    """Whatever is passed on for less is nothing that costs more to an upstream with any three of these habits, unless the operator
    has named that very path, and said what it costs."""
    price = found(FREE_AND_PAID[0], path)
    if isinstance(price, str) or unquote(path) in ("/", "/v1/reports", "/premium/", "/report.php"):
        return
    read = unquote(encode_path(unquote(path)))  # as any upstream decodes it
    for habit in habits:
        read = habit(read)
    assert not [least for pattern, least in PAID_AT.items() if re.fullmatch(pattern, read) and least > price], (path, read)


FREE_AND_PAID = []


@pytest.fixture(autouse=True)
def _table(table):
    FREE_AND_PAID[:] = [table]
