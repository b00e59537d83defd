"""The table `[webhooks]` of server.toml: where events may be sent besides the public network, and for how long it is tried."""

import ipaddress

from .models import WebhooksConfig
from .sections import Section


def webhooks_config(root: Section) -> WebhooksConfig:
    """Return the checked table."""
    section = root.table("webhooks")
    allowed = []
    for text in section.texts("allow") if section.has("allow") else ():
        try:
            allowed.append(ipaddress.ip_network(text))
        except ValueError:
            section.fail("allow", "must be addresses or networks, as 10.0.0.0/8")
    return WebhooksConfig(
        allowed=tuple(allowed),
        give_up_seconds=section.integer("give_up_days", 1, 90, 7) * 24 * 3600,
        answer_seconds=section.integer("answer_seconds", 1, 120, 15),
        sales_seconds=section.integer("sales_period_minutes", 1, 24 * 60, 60) * 60,
    )
