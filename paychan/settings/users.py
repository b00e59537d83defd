"""`[users]`, the same in all three files: which user each process has, where each has one of its own.

Without the table all three are one user's, and nobody else is let in. With it server and store, server and signer know each other
by their user ids, which the kernel tells of both ends of a Unix socket; so the sockets may be where both may enter.
"""

import pwd

from .models import Users
from .sections import Section

PROCESSES = ("server", "store", "signer")


def read_users(root: Section) -> Users:
    """Return the checked table; one without users if it is not there."""
    section = root.table("users")
    if not root.has("users"):
        return Users()
    ids = {name: _user_id(section, name) for name in PROCESSES}
    if ids["signer"] is not None and ids["signer"] == ids["server"]:
        section.fail("signer", "is the server's user: who breaks into the server could read the key; leave the table out")
    return Users(**ids)


def _user_id(section: Section, key: str) -> int | None:
    name = section.text(key)
    try:
        return pwd.getpwnam(name).pw_uid if name else None
    except (KeyError, ValueError):
        section.fail(key, "is no user of this machine")
        return None
