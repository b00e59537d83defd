"""Where a payer's files are: one directory with NAME.json (state), NAME.json.lock and NAME.key for each channel."""

import argparse
import os
import re
from pathlib import Path

from .output import UsageError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}\Z")


def state_directory(arguments: argparse.Namespace) -> Path:
    """Return --state-dir, else $XDG_DATA_HOME/paychan, else ~/.local/share/paychan."""
    if arguments.state_dir:
        return Path(arguments.state_dir)
    data_home = os.environ.get("XDG_DATA_HOME", "")
    return (Path(data_home) if os.path.isabs(data_home) else Path.home() / ".local" / "share") / "paychan"


def channel_path(arguments: argparse.Namespace, name: str) -> Path:
    """Return the state file of the channel `name`. Raises UsageError if it cannot be a file's name."""
    if not _NAME.match(name):
        raise UsageError("a channel's name has letters, digits, '.', '_' and '-'")
    return state_directory(arguments) / f"{name}.json"


def channel_names(arguments: argparse.Namespace) -> list[str]:
    """Return the names of all channels, sorted."""
    return sorted(path.stem for path in state_directory(arguments).glob("*.json") if _NAME.match(path.stem))


def free_name(arguments: argparse.Namespace) -> str:
    """Return channel-1, or the first of its followers that is free."""
    taken, number = set(channel_names(arguments)), 1
    while f"channel-{number}" in taken:
        number += 1
    return f"channel-{number}"
