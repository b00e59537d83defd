"""`Accept-Payment`: which methods and intents a client would pay with (section 2.9)."""

import re

from . import INTENT, METHOD

HEADER = "Accept-Payment"
_RANGE = re.compile(r"([a-z]+|\*)/([a-z]+|\*)(?:[ \t]*;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?\Z")
_CHARACTERS_MAX = 4096


def quality(value: str | None, method: str = METHOD, intent: str = INTENT) -> float:
    """Return how gladly a client takes a method and intent, 0 (not at all) to 1. value: the header's; None: it was not sent, which
    is 1, as is one that makes no sense. Of the ranges that match, the most specific counts."""
    if value is None or len(value) > _CHARACTERS_MAX:
        return 1.0
    best, found = -1, 0.0
    for part in value.split(","):
        match = _RANGE.match(part.strip().lower())
        if match is None:
            if part.strip():
                return 1.0
            continue
        if match[1] not in (method, "*") or match[2] not in (intent, "*"):
            continue
        exactness = 2 * (match[1] != "*") + (match[2] != "*")
        if exactness > best:
            best, found = exactness, float(match[3] or 1)
    return found


def render(*offers: tuple[str, float]) -> str:
    """Return the header's value for such as ("bitcoin/session", 1), in order."""
    return ", ".join(name if weight >= 1 else f"{name};q={weight:.3g}" for name, weight in offers)
