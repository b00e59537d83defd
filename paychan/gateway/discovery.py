"""`GET /openapi.json`: what is sold here, for programs that look for it (docs/PAYMENT_SCHEME.md section 2.10)."""

import re
from typing import Any

from .. import __version__
from ..mpp.discovery import mark
from .models import GatewayConfig, Route, Unit

_ALL = ("GET", "POST", "PUT", "PATCH", "DELETE")
_UNITS = {Unit.KILOBYTE: "kilobyte of the answer", Unit.SECOND: "second of the answer", Unit.EVENT: "event or message"}


def describe(config: GatewayConfig) -> dict[str, Any]:
    """Return the OpenAPI description of all routes, with their prices. Only what the operator wrote is told, and no upstream."""
    assert config.discovery is not None
    paths: dict[str, dict[str, Any]] = {}
    for route in config.routes:
        operations = paths.setdefault(_template(route.path), {"parameters": _parameters(route.path)})
        for method in sorted(route.methods or _ALL):
            if method.lower() in ("get", "post", "put", "patch", "delete", "head", "options"):
                operations[method.lower()] = _operation(route)
    info = {"title": config.discovery.title, "version": config.discovery.version, "description": config.discovery.description}
    servers = [{"url": config.public_url}] if config.public_url else []
    return {"openapi": "3.1.0", "info": info, "servers": servers, "paths": paths, "x-generator": f"paychan {__version__}"}


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {"responses": {"default": {"description": "What is sold, or why not"}}}
    if route.description:
        operation["description"] = route.description
    if route.price is not None:
        unit = _UNITS.get(route.price.unit)
        mark(operation, route.price.amount, f"for each {unit}" if unit else "")
    return operation


def _template(path: str) -> str:
    """Return a path as OpenAPI has it: `*` becomes a parameter."""
    count = iter(range(1, 1 + path.count("*")))
    return re.sub(r"\*", lambda _: f"{{part{next(count)}}}", path)


def _parameters(path: str) -> list[dict[str, Any]]:
    names = re.findall(r"\{(part\d+)\}", _template(path))
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
