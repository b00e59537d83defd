"""Aim: a request is counted for who really sent it: what a client writes itself is believed by nobody. Method: chains of proxies,
read by hand; any chain at all, and whatever stands before the first address that nobody vouches for."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paychan.core.addresses import HOPS_MAX, NOBODY, Networks, hops_of, number_of, read_address, vouched

FORWARDED_FOR, FORWARDED = "x-forwarded-for", "forwarded"
TRUSTED = Networks(["10.0.0.0/8", "2001:db8:5::/48"])

READ = {
    "192.0.2.7": "192.0.2.7",
    "192.0.2.7:4711": "192.0.2.7",
    "[2001:db8::7]:4711": "2001:db8::7",
    "2001:db8::7": "2001:db8::7",
    "[2001:db8::7]": "2001:db8::7",
    "fe80::1%eth0": "fe80::1",
    "::ffff:192.0.2.7": "192.0.2.7",
    "unknown": None,
    "_hidden": None,
    "": None,
    "192.0.2.07": None,
    "a.example": None,
}


@pytest.mark.parametrize("text", READ)
def test_addresses_are_read_as_proxies_write_them(text):
    assert read_address(text) == (ip_address(READ[text]) if READ[text] else None)


CHAINS = {
    # who is connected, header, its value, who is counted
    "its own": ("192.0.2.1", FORWARDED_FOR, "203.0.113.9", "192.0.2.1"),
    "of a trusted proxy": ("10.0.0.1", FORWARDED_FOR, "203.0.113.9", "203.0.113.9"),
    "forged before the proxy's": ("10.0.0.1", FORWARDED_FOR, "198.51.100.1, 203.0.113.9", "203.0.113.9"),
    "forged as if by a proxy": ("10.0.0.1", FORWARDED_FOR, "198.51.100.1, 10.0.0.2, 203.0.113.9", "203.0.113.9"),
    "two proxies": ("10.0.0.1", FORWARDED_FOR, "203.0.113.9, 10.0.0.2", "203.0.113.9"),
    "lines of their own": ("10.0.0.1", FORWARDED_FOR, "198.51.100.1,203.0.113.9,10.0.0.2", "203.0.113.9"),
    "nothing said": ("10.0.0.1", FORWARDED_FOR, "", "10.0.0.1"),
    "nothing that makes sense": ("10.0.0.1", FORWARDED_FOR, "198.51.100.1, unknown", "10.0.0.1"),
    "sense behind nonsense": ("10.0.0.1", FORWARDED_FOR, "unknown, 10.0.0.2", "10.0.0.2"),
    "only proxies": ("10.0.0.1", FORWARDED_FOR, "10.0.0.3, 10.0.0.2", "10.0.0.3"),
    "of IPv6": ("2001:db8:5::1", FORWARDED_FOR, "2001:db8:7::9", "2001:db8:7::9"),
    "RFC 7239": ("10.0.0.1", FORWARDED, "for=198.51.100.1, for=203.0.113.9;proto=https;by=10.0.0.1", "203.0.113.9"),
    "RFC 7239, quoted": ("10.0.0.1", FORWARDED, 'For="[2001:db8:7::9]:4711"', "2001:db8:7::9"),
    "a comma in quotes": ("10.0.0.1", FORWARDED, 'for=203.0.113.9;ext="a,for=198.51.100.1"', "203.0.113.9"),
    "a quote that is escaped": ("10.0.0.1", FORWARDED, r'for=203.0.113.9;ext="\",for=198.51.100.1"', "203.0.113.9"),
    "two in one element": ("10.0.0.1", FORWARDED, "for=198.51.100.1;for=203.0.113.9", "10.0.0.1"),
    "hidden": ("10.0.0.1", FORWARDED, "for=198.51.100.1, for=_gazonk", "10.0.0.1"),
}


@pytest.mark.parametrize("case", CHAINS)
def test_of_a_chain_the_nearest_that_is_not_trusted_counts(case):
    peer, header, value, who = CHAINS[case]
    assert vouched(ip_address(peer), hops_of(value, header), TRUSTED) == ip_address(who)


def test_who_comes_through_a_unix_socket_is_trusted_if_that_is_said():
    hops = [ip_address("203.0.113.9")]
    assert vouched(None, hops, Networks(["unix"])) == hops[0]
    assert vouched(None, hops, Networks()) is None and number_of(None) == NOBODY


ADDRESSES = st.ip_addresses().map(lambda address: read_address(str(address)))


@given(st.lists(ADDRESSES), ADDRESSES, st.integers(0, HOPS_MAX - 1), st.sampled_from((FORWARDED_FOR, FORWARDED)))
def test_what_a_client_writes_itself_is_never_reached(forged, client, proxies, header):
    """It writes any chain; the proxies add who each of them was asked by."""
    if TRUSTED.has(client):
        return
    chain = [*forged, client, *[ip_address("10.9.9.9")] * proxies]
    texts = [str(one) if header == FORWARDED_FOR else f'for="[{one}]"' for one in chain]
    assert vouched(ip_address("10.0.0.1"), hops_of(", ".join(texts), header), TRUSTED) == client


@given(st.text())
def test_any_value_is_read(value):
    for header in (FORWARDED_FOR, FORWARDED):
        list(hops_of(value, header))


@given(ADDRESSES, ADDRESSES)
def test_two_are_counted_together_only_within_a_64(one, other):
    assert number_of(one) != NOBODY
    same = one == other if one.version == 4 or other.version == 4 else int(one) >> 64 == int(other) >> 64
    if not any(int(each) >> 64 in (0xFFFFFFFF, 0xFFFFFFFE) for each in (one, other)):
        assert (number_of(one) == number_of(other)) == same
