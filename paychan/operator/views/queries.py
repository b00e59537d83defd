"""The query of a list, read strictly: a name that a route does not know, or one twice, is refused like a wrong value."""

from urllib.parse import parse_qsl

from ...core.errors import Rejection

LIMIT_MAX = 500
LIMIT = 100


def read_query(query: str, *names: str) -> dict[str, str]:
    """Return the values by name, empty for those that are left out. Raises Rejection("invalid_query")."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=16) if query else []
    except ValueError as error:
        raise refused("The query does not parse") from error
    found = dict(pairs)
    if len(found) < len(pairs) or not found.keys() <= set(names):
        raise refused(f"The query may have {', '.join(names)}, each once" if names else "There is nothing to ask for in a query")
    return {name: found.get(name, "") for name in names}


def read_limit(text: str) -> int:
    """Return how many rows are asked for. Raises Rejection("invalid_query")."""
    if not text:
        return LIMIT
    if not text.isascii() or not text.isdecimal() or len(text) > 3 or not 1 <= int(text) <= LIMIT_MAX:
        raise refused(f"limit is a number from 1 to {LIMIT_MAX}")
    return int(text)


def refused(detail: str) -> Rejection:
    """Return the refusal of a query."""
    return Rejection("invalid_query", detail)
