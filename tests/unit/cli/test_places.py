"""Aim: it is always clear where a payer's files are, or said why not. Method: the real functions under all environments."""

import os
import pwd
from argparse import Namespace

import pytest

from paychan.cli.output import UsageError
from paychan.cli.places import channel_names, free_name, state_directory
from paychan.client import StateError

ANYWHERE = Namespace(state_dir=None)


@pytest.fixture
def env(monkeypatch):
    """An empty environment."""
    for name in ("HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_the_places_in_their_order(env):
    env.setenv("HOME", "/home/me")
    assert str(state_directory(ANYWHERE)) == "/home/me/.local/share/paychan"
    env.setenv("XDG_DATA_HOME", "relative")  # the specification wants such a one ignored
    assert str(state_directory(ANYWHERE)) == "/home/me/.local/share/paychan"
    env.setenv("XDG_DATA_HOME", "/data")
    assert str(state_directory(ANYWHERE)) == "/data/paychan"
    assert str(state_directory(Namespace(state_dir="here"))) == "here"


def test_without_home_the_account_s_is_taken(env):
    assert str(state_directory(ANYWHERE)) == os.path.join(pwd.getpwuid(os.getuid()).pw_dir, ".local/share/paychan")


@pytest.mark.parametrize("home", [None, "", "relative"])
def test_who_has_no_home_is_told_what_to_give(env, home):
    def unknown(uid: int):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    env.setattr(pwd, "getpwuid", unknown)
    if home is not None:
        env.setenv("HOME", home)
    with pytest.raises(UsageError, match="--state-dir DIR"):
        state_directory(ANYWHERE)
    assert str(state_directory(Namespace(state_dir="/here"))) == "/here"


def test_names_are_those_of_channels_and_nothing_else(tmp_path):
    for name in ("b.json", "a.json", "a.json.lock", "a.key", "-x.json", ".json", os.fsdecode(b"\xff.json"), "c.json.tmp"):
        (tmp_path / name).touch()
    assert channel_names(Namespace(state_dir=str(tmp_path))) == ["a", "b"]


def test_a_directory_that_cannot_be_read_is_not_an_empty_one(tmp_path):
    """Else the next channel would be called channel-1 again, and a payer would think that all are gone."""
    assert free_name(Namespace(state_dir=str(tmp_path / "none"))) == "channel-1"
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="Not a directory"):
        channel_names(Namespace(state_dir=str(tmp_path / "file")))
