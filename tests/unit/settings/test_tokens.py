"""Aim: only a token that stands in the file opens the door, and the file is never half a file. Method: real files."""

import stat

import pytest

from paychan.core.errors import ConfigError
from paychan.settings.tokens import TOKENS_MAX, Token, digest, find_token, is_name, make_token, read_tokens, write_tokens


def test_what_is_written_is_read_and_holds_no_token(tmp_path):
    path, made = tmp_path / "sell-tokens", [make_token() for _ in range(3)]
    tokens = [Token(f"shop-{number}", "charge" if number else "read", digest(token)) for number, token in enumerate(made)]
    write_tokens(path, tokens)
    assert read_tokens(path) == tokens
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not any(token[4:] in path.read_text() for token in made)
    assert [find_token(tokens, token) for token in made] == tokens
    assert list(tmp_path.iterdir()) == [path]


def test_tokens_have_256_random_bits():
    made = {make_token() for _ in range(1000)}
    assert len(made) == 1000 and {len(token) for token in made} == {4 + 43}


@pytest.mark.parametrize("wrong", ["", "pct_", "x" * 10_000, "\udcff", "pct_\x00"])
def test_anything_else_is_no_token(wrong):
    assert find_token([Token("a", "read", digest("pct_good"))], wrong) is None
    assert find_token([], wrong) is None


def test_the_hash_of_a_token_is_no_token():
    row = Token("a", "read", digest("pct_good"))
    assert find_token([row], row.digest) is None


def test_no_file_is_no_token(tmp_path):
    assert read_tokens(tmp_path / "nothing") == []


ROW = f"shop charge {digest('pct_good')}\n"


@pytest.mark.parametrize(
    "text",
    [
        "\n", "shop\n", "shop charge\n", f"shop sell {digest('x')}\n", f"shop  charge {digest('x')}\n", ROW.upper(),
        ROW[:-2] + "\n", ROW + ROW, ROW + "\n", f"sh/op charge {digest('x')}\n", "\xff", f"# {ROW}",
        "".join(f"n{number} read {digest(str(number))}\n" for number in range(TOKENS_MAX + 1)),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused_and_not_quoted(tmp_path, text):
    path = tmp_path / "sell-tokens"
    path.write_text(text, "latin-1")
    with pytest.raises(ConfigError) as caught:
        read_tokens(path)
    assert str(caught.value).startswith(f"{path}: ") and digest("pct_good") not in str(caught.value)


def test_names_are_short_and_plain():
    assert all(map(is_name, ("a", "shop-1", "a.b_c", "x" * 64)))
    assert not any(map(is_name, ("", "x" * 65, "a b", "ä", "a/b", "a\n")))
