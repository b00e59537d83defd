"""`listen = "HOST:PORT"` or `"unix:PATH"`, as several tables of server.toml have it: one rule for all."""

from pathlib import Path

from ..rpc.connection import Address
from . import dangers, hosts
from .models import Common
from .sections import Section


def read_listen(section: Section, common: Common) -> Address | None:
    """Return where the table says to listen: an absolute path below the state directory, or an IP address and a port. None:
    nowhere, or at what is no place, which is noted."""
    text = section.text("listen", "")
    if not text:
        return None
    if text.startswith("unix:"):
        return _socket(section, text.removeprefix("unix:"), common)
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        section.fail("listen", "must be HOST:PORT or unix:PATH")
        return None
    try:
        address = hosts.listening_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError as error:
        section.fail("listen", f"its host {error}")
        return None
    return Address(host=address, port=int(port))


def _socket(section: Section, path: str, common: Common) -> Address:
    address = Address(path=str(common.state_dir.absolute() / Path(path)))
    if not path:
        section.fail("listen", "must be HOST:PORT or unix:PATH")
    dangers.check_address(section, "listen", address, common.state_dir, False)
    return address
