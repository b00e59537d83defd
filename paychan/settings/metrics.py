"""The table `[metrics]` of server.toml: where Prometheus asks."""

from pathlib import Path

from ..rpc.connection import Address
from . import dangers, hosts
from .models import Common, MetricsConfig
from .sections import Section


def metrics_config(root: Section, common: Common) -> MetricsConfig:
    """Return the checked table; without it, or without `listen`, nothing is listened at."""
    metrics = root.table("metrics")
    text, is_public = metrics.text("listen", ""), metrics.boolean("public", False)
    if not text:
        return MetricsConfig()
    if text.startswith("unix:"):
        return _socket(metrics, text.removeprefix("unix:"), common)
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        metrics.fail("listen", "must be HOST:PORT or unix:PATH")
        return MetricsConfig()
    try:
        address = hosts.listening_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError as error:
        metrics.fail("listen", f"its host {error}")
        return MetricsConfig()
    if not hosts.is_near(address) and not is_public:
        why = "is open to the network, and tells everybody what is received and how much is unsettled"
        metrics.fail("listen", f"{why}; if that is wanted, public = true")
    return MetricsConfig(host=address, port=int(port))


def _socket(metrics: Section, path: str, common: Common) -> MetricsConfig:
    socket = common.state_dir.absolute() / Path(path)
    if not path:
        metrics.fail("listen", "must be HOST:PORT or unix:PATH")
    dangers.check_address(metrics, "listen", Address(path=str(socket)), common.state_dir, False)
    return MetricsConfig(socket=socket)
