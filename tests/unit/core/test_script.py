"""Aim: redeem scripts, their addresses and script numbers. Method: byte for byte against the vectors, and by hand."""

import json
from pathlib import Path

import pytest

from paychan.core.network import LIVE, TEST
from paychan.core.script import encode_script_number, funding_address, p2sh_script_pubkey, push, read_pushes, redeem_script

VECTORS = Path(__file__).parents[2] / "vectors"
CHANNELS = json.loads((VECTORS / "redeem-and-debug-funding.json").read_text())
KEYS = bytes.fromhex("02" + "11" * 32), bytes.fromhex("03" + "22" * 32)


@pytest.mark.parametrize("row", CHANNELS, ids=lambda row: str(row["exp_time"]))
def test_redeem_script_and_addresses_equal_the_vectors(row):
    script = redeem_script(bytes.fromhex(row["server_pubkey"]), bytes.fromhex(row["client_pubkey"]), row["exp_time"])
    assert script.hex() == row["redeem_script"]
    assert len(script) == row["redeem_len"]
    assert p2sh_script_pubkey(script).hex() == f"a914{row['p2sh_hash']}87"
    assert funding_address(TEST, script) == row["address_test"]
    assert funding_address(LIVE, script) == row["address_live"]


@pytest.mark.parametrize(
    ("number", "encoded"),
    [
        (0, ""),
        (1, "01"),
        (0x7F, "7f"),
        (0x80, "8000"),
        (0xFF, "ff00"),
        (499_999_999, "ff64cd1d"),
        (500_000_000, "0065cd1d"),
        (2**31 - 1, "ffffff7f"),
        (2**31, "0000008000"),
        (2**32 - 1, "ffffffff00"),
    ],
)
def test_script_numbers_are_minimal_and_positive(number, encoded):
    assert encode_script_number(number).hex() == encoded


def test_negative_script_number_is_refused():
    with pytest.raises(ValueError):
        encode_script_number(-1)


@pytest.mark.parametrize(("exp_time", "size"), [(500_000_000, 80), (2**31 - 1, 80), (2**31, 81), (2**32 - 1, 81)])
def test_redeem_script_grows_by_one_byte_in_2038(exp_time, size):
    assert len(redeem_script(*KEYS, exp_time)) == size


@pytest.mark.parametrize("exp_time", [-1, 0, 499_999_999, 2**32, 1.5e9, True, "1500000000"])
def test_redeem_script_refuses_what_is_no_unix_time(exp_time):
    with pytest.raises(ValueError):
        redeem_script(*KEYS, exp_time)


@pytest.mark.parametrize(("server", "client"), [(32, 33), (33, 65), (33, 0)])
def test_redeem_script_refuses_keys_of_another_length(server, client):
    with pytest.raises(ValueError):
        redeem_script(b"\x02" * server, b"\x02" * client, 1_500_000_000)


@pytest.mark.parametrize(("size", "head"), [(0, "00"), (75, "4b"), (76, "4c4c"), (80, "4c50"), (255, "4cff")])
def test_pushes_are_the_shortest(size, head):
    assert push(bytes(size)) == bytes.fromhex(head) + bytes(size)


def test_push_beyond_255_bytes_is_refused():
    with pytest.raises(ValueError):
        push(bytes(256))


@pytest.mark.parametrize(
    ("script", "pushed"),
    [
        ("", []),
        ("00", [""]),
        ("4f515260", ["81", "01", "02", "10"]),
        ("02aabb", ["aabb"]),
        ("4c01aa", ["aa"]),
        ("4d0200aabb", ["aabb"]),
        ("4e03000000aabbcc51", ["aabbcc", "01"]),
        ("4d0002" + "ab" * 512, ["ab" * 512]),
    ],
)
def test_what_is_pushed_is_read_in_any_form(script, pushed):
    assert read_pushes(bytes.fromhex(script)) == [bytes.fromhex(data) for data in pushed]


@pytest.mark.parametrize("script", ["02aa", "4c02aa", "4c", "4d01", "4d0300aabb", "4e01000000", "50", "61", "5176", "ac", "ff"])
def test_what_is_cut_off_or_does_more_than_push_is_not_read(script):
    assert read_pushes(bytes.fromhex(script)) is None
