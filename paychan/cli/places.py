"""Where a payer's files are: one directory with NAME.json (state), NAME.json.lock and NAME.key for each channel."""

import argparse
import os
import re
from pathlib import Path

from ..client import StateError
from .output import UsageError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}\Z")


def state_directory(arguments: argparse.Namespace) -> Path:
    """Return --state-dir, else $XDG_DATA_HOME/paychan, else ~/.local/share/paychan. Raises UsageError if there is no such place."""
    if arguments.state_dir:
        return Path(arguments.state_dir)
    data_home = os.environ.get("XDG_DATA_HOME", "")
    if os.path.isabs(data_home):
        return Path(data_home) / "paychan"
    home = os.path.expanduser("~") if os.environ.get("HOME", "~") else ""
    if not os.path.isabs(home):  # no HOME, and a user id that no account has
        raise UsageError("this user has no home directory: say where channels are kept, with --state-dir DIR")
    return Path(home) / ".local" / "share" / "paychan"


def purse_directory(arguments: argparse.Namespace) -> Path:
    """Return --purse, else `purse` in the state directory. Raises UsageError if there is no such place."""
    return Path(arguments.purse) if arguments.purse else state_directory(arguments) / "purse"


def is_name(text: str) -> bool:
    """Return whether a channel can be called so."""
    return bool(_NAME.match(text))


def channel_path(arguments: argparse.Namespace, name: str) -> Path:
    """Return the state file of the channel `name`. Raises UsageError if it cannot be a file's name."""
    if not _NAME.match(name):
        raise UsageError("a channel's name has letters, digits, '.', '_' and '-'")
    return state_directory(arguments) / f"{name}.json"


def channel_names(arguments: argparse.Namespace) -> list[str]:
    """Return the names of all channels, sorted. Raises StateError if there is a directory that cannot be read."""
    directory = state_directory(arguments)
    try:
        found = [name.removesuffix(".json") for name in os.listdir(directory) if name.endswith(".json")]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StateError(f"{directory}: cannot be read: {error.strerror}") from error
    return sorted(name for name in found if _NAME.match(name))


def free_name(arguments: argparse.Namespace) -> str:
    """Return channel-1, or the first of its followers that is free."""
    taken, number = set(channel_names(arguments)), 1
    while f"channel-{number}" in taken:
        number += 1
    return f"channel-{number}"
