"""Who may read and write what: the state directory, the key, the sockets, the configuration."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from .machine import Machine
from .verdicts import Verdict, bad, not_asked, ok, warning

SECRET = ("store", "signer", "run", "sell-tokens", "clock", "broadcast")
"""What of a state directory holds payments, or who may ask: tokens that close channels."""


@dataclass(frozen=True)
class Place:
    """mode: permission bits. owner: user id. may_write: whether this user may."""

    path: str
    mode: int
    owner: int
    may_write: bool = True


def ask(path: Path) -> Place | None:
    """Return None if it is not there, or cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return Place(str(path), stat.S_IMODE(found.st_mode), found.st_uid, os.access(path, os.W_OK))


def state_dir(machine: Machine) -> list[Verdict]:
    found = []
    for directory in machine.state_dirs:
        place = ask(directory)
        if place is None:
            found.append(not_asked("state_dir", f"{directory} is not there yet, or may not be looked at by this user"))
            continue
        found.append(judge_state_dir(place, os.geteuid()))
        inside = [ask(directory / name) for name in SECRET]
        found += judge_inside([one for one in inside if one is not None], str(directory))
    return found


def judge_state_dir(place: Place, user: int) -> Verdict:
    """user: who asks."""
    if place.mode & stat.S_IWOTH:
        why = f"everybody may write to {place.path}: who renames what is in it is store and signer"
        return bad("state_dir", why, f"chmod o-w {place.path}, and see that nobody was there")
    if place.mode & stat.S_IWGRP:
        why = f"the group may write to {place.path}: who renames what is in it is store and signer"
        return warning("state_dir", why, f"chmod g-w {place.path}")
    if place.owner not in (user, 0) and user:
        return warning(
            "state_dir",
            f"{place.path} belongs to user {place.owner}",
            f"ask as that user: setpriv --reuid {place.owner} paychan doctor",
        )
    if not place.may_write:
        return bad(
            "state_dir", f"this user may not write to {place.path}", "run the processes as its owner, or mount it for writing"
        )
    return ok("state_dir", f"only its owner may write to {place.path}")


def judge_inside(places: list[Place], directory: str) -> list[Verdict]:
    is_shut = [place for place in places if place.mode & 0o007]
    if not is_shut:
        return [ok("payments", f"what is in {directory} is its owner's alone")]
    names = ", ".join(place.path for place in is_shut)
    return [
        warning(
            "payments", f"others may look into {names}: payments in there close channels", f"chmod -R o= {names.replace(',', '')}"
        )
    ]


def files(machine: Machine) -> list[Verdict]:
    """Look at the three files: who may write to them says where settlements pay."""
    directory = ask(machine.directory)
    names = ("server.toml", "store.toml", "signer.toml")
    places = [ask(machine.directory / name) for name in names]
    return [judge_files([place for place in (directory, *places) if place is not None])]


def judge_files(places: list[Place]) -> Verdict:
    open_ones = [place for place in places if place.mode & (stat.S_IWOTH | stat.S_IWGRP) and not place.mode & stat.S_ISVTX]
    for place in open_ones:
        if place.mode & stat.S_IWOTH:
            why = f"everybody may write to {place.path}: it says where settlements pay"
            return bad("configuration", why, f"chmod go-w {place.path}, and read it again")
    if open_ones:
        why = f"the group may write to {open_ones[0].path}: it says where settlements pay"
        return warning("configuration", why, f"chmod g-w {open_ones[0].path}")
    return ok("configuration", "only its owner may write to it")


def key(machine: Machine) -> list[Verdict]:
    place = ask(machine.signer.key_file)
    if place is None:
        return [not_asked("key", f"{machine.signer.key_file} is not there, or may not be looked at by this user")]
    return [judge_key(place)]


def judge_key(place: Place) -> Verdict:
    if place.mode & 0o077:
        return bad(
            "key",
            f"{place.path} is open to group or others",
            f"chmod 600 {place.path}; if somebody may have read it, use a new key",
        )
    return ok("key", "only its owner may read the key file")


def sockets(machine: Machine) -> list[Verdict]:
    """Look at the sockets that are there; where nothing runs, none is."""
    addresses = [config.address for config in (machine.files.store, machine.files.signer) if config is not None]
    paths = [Path(address.path) for address in addresses if address.path]
    if machine.files.server is not None and machine.files.server.sell.socket is not None:
        paths.append(machine.files.server.sell.socket)
    places = [place for path in paths if (place := ask(path)) is not None]
    return judge_sockets(places) if places else [not_asked("sockets", "none is there")]


def judge_sockets(places: list[Place]) -> list[Verdict]:
    for place in places:
        if place.mode & 0o007:
            return [bad("sockets", f"everybody may connect to {place.path}", f"chmod o= {place.path}, and see who has changed it")]
    return [ok("sockets", "only their owners, and groups if they are given one, may connect")]
