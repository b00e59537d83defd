"""The table `[metrics]` of server.toml: where Prometheus asks."""

from pathlib import Path

from . import hosts
from .listening import read_listen
from .models import Common, MetricsConfig
from .sections import Section


def metrics_config(root: Section, common: Common) -> MetricsConfig:
    """Return the checked table; without it, or without `listen`, nothing is listened at."""
    metrics = root.table("metrics")
    address, is_public = read_listen(metrics, common), metrics.boolean("public", False)
    if address is None:
        return MetricsConfig()
    if address.path:
        return MetricsConfig(socket=Path(address.path))
    if not hosts.is_near(address.host) and not is_public:
        why = "is open to the network, and tells everybody what is received and how much is unsettled"
        metrics.fail("listen", f"{why}; if that is wanted, public = true")
    return MetricsConfig(host=address.host, port=address.port)
