"""The endpoints of webhooks: made, listed, removed, told again, and what came of the latest deliveries."""

import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from ..core.errors import Rejection, Unavailable
from ..events.endpoint import ENDPOINTS_MAX, PREFIX, Endpoint, check_types, key_of, make_secret
from ..events.event import NUMBER_MAX, Event, Numbered
from ..rpc.connection import ConnectionGone, RemoteRefusal
from ..rpc.event_messages import NoteChange
from ..rpc.store_messages import MessageError
from ..webhooks.target import check_url
from .answers import Answer, Request, json_answer, read_object
from .context import Context
from .telling import of

ID = re.compile(r"ep_[0-9a-f]{16}\Z")
TRIES_MAX = 20
"""Of changing an endpoint while deliveries change it, too."""

log = logging.getLogger("paychan.operator")


async def list_all(context: Context, _: Request) -> Answer:
    """Answer GET /operator/v1/webhooks."""
    found = [Endpoint.parse(note).shown() for note in (await _notes(context, PREFIX)).values()]
    return json_answer({"webhooks": sorted(found, key=lambda row: (row["created_at"], row["id"])), "next": None})


async def make(context: Context, request: Request) -> Answer:
    """Answer POST /operator/v1/webhooks: {"url", "types"?, "secret"?, "after"?}. The secret is told here, and never again."""
    asked = _members(request, {"url": str, "types": list, "secret": str, "after": int}, {"url"})
    try:
        check_url(asked["url"], context.config.webhooks.allowed)
    except ValueError as error:
        raise Rejection("invalid_command", f"url {error}") from None
    secret = asked.get("secret", make_secret(secrets.token_bytes(32)))
    try:
        key_of(secret)
        types = check_types(asked.get("types", []))
    except ValueError as error:
        raise Rejection("invalid_command", f"secret or types {error}") from None
    if len(await _notes(context, PREFIX)) >= ENDPOINTS_MAX:
        raise Rejection("invalid_command", f"There are {ENDPOINTS_MAX} endpoints already")
    newest = (await _asked(of(context).store.events(NUMBER_MAX, 1))).newest
    cursor = asked.get("after", newest)
    if not 0 <= cursor <= newest:
        raise Rejection("invalid_command", f"after is no event's number: the newest is {newest}")
    endpoint = Endpoint(f"ep_{secrets.token_hex(8)}", asked["url"], secret, int(time.time()), cursor, types)
    await _asked(of(context).store.note(NoteChange(endpoint.name, None, endpoint.encode())))
    log.info("%s: webhook %s made", request.who, endpoint.id)
    return json_answer({**endpoint.shown(), "secret": secret}, 201)


async def remove(context: Context, request: Request) -> Answer:
    """Answer DELETE /operator/v1/webhooks/ID. Once it is answered, this process sends it nothing."""
    endpoint = await _change(context, request, lambda _: None)
    if (deliverer := of(context).deliverer) is not None:
        await deliverer.forget(endpoint.name)
    log.info("%s: webhook %s removed", request.who, endpoint.id)
    return json_answer(endpoint.shown())


async def redeliver(context: Context, request: Request) -> Answer:
    """Answer POST /operator/v1/webhooks/ID/redeliver: {"after"?: NUMBER}: all events after this one are told again, and an endpoint
    that was given up is tried again; {"event": NUMBER}: this one is sent now, once, and what came of it is the answer."""
    asked = _members(request, {"after": int, "event": int}, set())
    if "event" in asked:
        return await _redeliver_one(context, request, asked)
    if not 0 <= asked.get("after", 0) <= NUMBER_MAX:
        raise Rejection("invalid_command", "after is no event's number")

    def again(endpoint: Endpoint) -> Endpoint:
        cursor = min(asked.get("after", endpoint.cursor), endpoint.cursor)  # forward would leave some out
        revision = endpoint.revision + 1
        return replace(endpoint, cursor=cursor, is_enabled=True, failing_since_at=0, attempts=0, why="", revision=revision)

    endpoint = await _change(context, request, again)
    log.info("%s: webhook %s is told again after event %d", request.who, endpoint.id, endpoint.cursor)
    return json_answer(endpoint.shown())


async def _redeliver_one(context: Context, request: Request, asked: dict[str, Any]) -> Answer:
    name, number = _name(request), asked["event"]
    note, deliverer = (await _notes(context, name)).get(name), of(context).deliverer
    if note is None or deliverer is None:
        raise Rejection("no_such_route")
    found = (await _asked(of(context).store.events(number - 1, 1))).events if 0 < number <= NUMBER_MAX else []
    if "after" in asked or not found or found[0][0] != number:
        raise Rejection("invalid_command", "event is not the number of one that is kept, or there is after besides")
    event = Numbered(number, Event.parse(found[0][1]))
    return json_answer({"delivery": asdict(await deliverer.tell_once(Endpoint.parse(note), event))})


async def deliveries(context: Context, request: Request) -> Answer:
    """Answer GET /operator/v1/webhooks/ID/deliveries: the latest attempts of this process."""
    name = _name(request)
    if name not in await _notes(context, name):
        raise Rejection("no_such_route")
    deliverer = of(context).deliverer
    attempts = deliverer.attempts(name) if deliverer is not None else []
    return json_answer({"deliveries": [asdict(attempt) for attempt in attempts], "next": None})


async def _change(context: Context, request: Request, change: Callable[[Endpoint], Endpoint | None]) -> Endpoint:
    """Change an endpoint's note, whoever changes it meanwhile; return what it is now, or was."""
    name = _name(request)
    for _ in range(TRIES_MAX):
        note = (await _notes(context, name)).get(name)
        if note is None:
            raise Rejection("no_such_route")
        before = Endpoint.parse(note)
        after = change(before)
        value = after.encode() if after is not None else None
        is_done, _now = await _asked(of(context).store.note(NoteChange(name, note, value)))
        if is_done:
            return after or before
    raise Unavailable("overloaded")


def _name(request: Request) -> str:
    if not ID.match(request.parts["id"]):
        raise Rejection("no_such_route")
    return PREFIX + request.parts["id"]


def _members(request: Request, kinds: dict[str, type], needed: set[str]) -> dict[str, Any]:
    """Return the members of a request's object. Raises Rejection for others, and for values of another type."""
    asked = read_object(request.body) if request.body else {}
    wrong = [name for name, value in asked.items() if name not in kinds or type(value) is not kinds[name]]
    if wrong := sorted({*wrong, *(needed - asked.keys())}):
        raise Rejection("invalid_command", f"{', '.join(wrong)}: missing, unknown or of another type")
    return asked


async def _notes(context: Context, prefix: str) -> dict[str, bytes]:
    notes: dict[str, bytes] = await _asked(of(context).store.notes(prefix))
    return notes


async def _asked(asking: Any) -> Any:
    try:
        return await asking
    except (ConnectionGone, RemoteRefusal, MessageError) as error:
        raise Unavailable("store_unavailable") from error
