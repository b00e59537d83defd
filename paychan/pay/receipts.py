"""The signed receipts of a channel, as they came: NAME.receipts in the purse, one a line, for `paychan receipts verify`. They are
no money: one that cannot be kept stops nothing."""

import logging
import os
import re
from pathlib import Path

_JWS = re.compile(r"[A-Za-z0-9_.-]{1,8192}\Z")

log = logging.getLogger("paychan.pay")


def receipts_file(directory: Path, name: str) -> Path:
    """Return where a channel's receipts are kept."""
    return directory / f"{name}.receipts"


def keep_receipt(directory: Path, name: str, jws: str) -> None:
    """Add a receipt, unless it is the last one there. Whoever has the channel's turn does it, so their order is the chain's."""
    if not _JWS.match(jws):
        return
    line = f"{jws}\n".encode()
    try:
        descriptor = os.open(receipts_file(directory, name), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with open(descriptor, "r+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - len(line), 0))
            if file.read(len(line)) != line:
                file.write(line)
    except OSError as error:
        log.warning("a receipt could not be kept: %s", error.strerror)
