"""Ways to be kept from payers by one address, and to run two systems on one key. See table.py."""

from .kinds import Break

ADDRESSES, FAIR = "tests/unit/core/test_addresses.py", "tests/unit/server/test_address_limits.py"

LIMITS = (
    Break(
        ("Z1",),
        "a header is believed of anybody",
        "paychan/core/addresses.py",
        "if not trusted.has(who) or hop is None:",
        "if hop is None:",
        (
            f"{ADDRESSES}::test_of_a_chain_the_nearest_that_is_not_trusted_counts",
            f"{ADDRESSES}::test_what_a_client_writes_itself_is_never_reached",
        ),
    ),
    Break(
        ("Z2",),
        "of a full table the address that floods is forgotten",
        "paychan/_fast/limits.pyx",
        "if _debt(places + way, now) < _debt(least, now):",
        "if _debt(places + way, now) > _debt(least, now):",
        (
            "tests/unit/fast/test_limits_table.py::"
            "test_a_stranger_with_any_number_of_addresses_does_not_grow_it_and_refuses_nobody",
        ),
    ),
    Break(
        ("Z3",),
        "an address that floods takes the time that others need",
        "paychan/_fast/channel.pyx",
        "floor, refusal = self._failing_ns_max // 4 * 3, Status.TOO_MANY_REFUSED",
        "floor, refusal = 0, Status.TOO_MANY_REFUSED",
        (f"{FAIR}::test_an_address_that_floods_keeps_no_other_out",),
    ),
    Break(
        ("Z4",),
        "a flood is not known as one at the worker that it is passed on to",
        "paychan/_fast/forward.pyx",
        "kind = FAILING_PAYMENT",
        "kind = PAYMENT",
        (f"{FAIR}::test_an_address_that_floods_keeps_no_other_out",),
    ),
    Break(
        ("Z5",),
        "two systems in one run have one key, in two files",
        "paychan/settings/instances.py",
        "if filecmp.cmp(*paths, shallow=False):",
        "if False:",
        ("tests/unit/settings/test_instances_together.py::test_one_key_in_two_files_is_found",),
    ),
)
