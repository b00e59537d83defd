"""Breaks of events and webhooks."""

from .kinds import Break

DELIVERY = "paychan/webhooks/delivery.py"
TOLD_TESTS = "tests/unit/store/test_store_told.py::"
DELIVERY_TESTS = "tests/unit/webhooks/test_delivery.py::"

TELLING = (
    Break(
        ("I8",),
        "an endpoint that was removed is told on until somebody looks",
        DELIVERY,
        "        self._removed.add(name)\n",
        "",
        (f"{DELIVERY_TESTS}test_a_removed_endpoint_is_not_brought_back_by_a_look_that_began_before",),
    ),
    Break(
        ("I8",),
        "a stream that has begun tells on whoever's token was taken back",
        "paychan/operator/serving.py",
        "                try:\n                    self._check_token(headers, least)\n",
        "                try:\n                    pass\n",
        ("tests/process/test_event_streams.py::test_a_token_that_is_taken_back_hears_no_event_more",),
    ),
    Break(
        ("I9",),
        "who goes on from what is kept no more is told the rest as if nothing were missing",
        "paychan/operator/events.py",
        "if after and after + 1 < found.oldest:",
        "if False:",
        ("tests/unit/operator/test_events_stream.py::test_cursors",),
    ),
    Break(
        ("I1",),
        "events are counted on from before their write: after one that failed their numbers are wrong, and written after the state",
        "store/engines/at_once.py",
        "            writes.update(self._numbered(events))",
        "            self._later = self._numbered(events)",
        (f"{TOLD_TESTS}test_the_stream_is_what_became_durable_whatever_dies_when", f"{TOLD_TESTS}test_what_an_event_says"),
    ),
    Break(
        ("I2",),
        "on PostgreSQL a number is taken without the lock: a reader skips the one that commits late",
        "store/engines/postgres/events.sql",
        "    IF cardinality(_bodies) = 0 THEN RETURN; END IF;\n    PERFORM pg_advisory_xact_lock(hashtext('paychan.events'));",
        "    IF cardinality(_bodies) = 0 THEN RETURN; END IF;",
        ("tests/process/test_events_postgres.py::test_several_stores_at_once_and_a_reader_that_skips_none",),
    ),
    Break(
        ("I3",),
        "the cursor is moved before the delivery",
        DELIVERY,
        "                if self._endpoint.wants(event.type):\n",
        "                self._endpoint = replace(self._endpoint, cursor=number)\n"
        "                await self._save()\n"
        "                if self._endpoint.wants(event.type):\n",
        (f"{DELIVERY_TESTS}test_a_process_that_dies_at_any_moment_and_a_store_that_goes_away_lose_nothing",),
    ),
    Break(
        ("I3",),
        "an event that was not taken is left for later, and the next one overtakes it",
        DELIVERY,
        "        while not await self._try(event):",
        "        if not await self._try(event):",
        (f"{DELIVERY_TESTS}test_whatever_the_receiver_answers_each_is_tried_until_it_is_taken_and_none_overtakes",),
    ),
    Break(
        ("I4",),
        "the signature is over the body alone: one event's signature is good for another id and time",
        "paychan/webhooks/signature.py",
        'f"{message_id}.{timestamp}.".encode() + body',
        "body",
        (
            "tests/unit/webhooks/test_signature.py::test_the_example_of_the_specification",
            "tests/unit/webhooks/test_signature.py::test_the_reference_verifies_ours_and_refuses_other_bytes",
        ),
    ),
    Break(
        ("I5",),
        "an address is looked at when an endpoint is named, and not when it is connected to",
        "paychan/webhooks/posting.py",
        "not all(may_reach(address, allowed) for address in addresses)",
        "False",
        (f"{DELIVERY_TESTS}test_an_endpoint_inside_is_not_asked",),
    ),
    Break(
        ("I6",),
        "events go that an endpoint has not heard",
        "store/events.py",
        "    if number > heard:\n        return age > config.undelivered_seconds\n",
        "",
        (f"{TOLD_TESTS}test_what_may_go", f"{TOLD_TESTS}test_events_go_in_order_and_numbers_never_come_again"),
    ),
    Break(
        ("I7",),
        "a client may tell of a settlement",
        "paychan/rpc/event_messages.py",
        " or any(event.type not in TOLD for event in events)",
        "",
        ("tests/unit/events/test_event_messages.py::test_what_only_the_store_tells_is_refused",),
    ),
)
