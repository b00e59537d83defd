"""Ways to lose money where a service manager, a proxy or the doctor is told what is not so. See table.py."""

from .kinds import Break

MANAGED, DEPLOYED = "tests/process/test_service_manager.py", "tests/process/test_deploy.py"

WATCHING = (
    Break(
        ("W1",),
        "READY is said before the server takes payments",
        "paychan/server/life.py",
        "if self._is_waited_for and self._count_ready(self._heard.keys() - self._retired) >= self._workers:",
        "if self._is_waited_for:",
        (
            "tests/unit/test_notify.py::test_ready_is_said_when_every_worker_takes_payments_and_not_before",
            f"{MANAGED}::test_each_process_is_ready_when_it_serves_and_not_before",
        ),
    ),
    Break(
        ("W2",),
        "the watchdog is fed though no group of the store becomes durable",
        "store/server.py",
        "await passed.wait()",
        "await asyncio.sleep(0)",
        ("tests/unit/store/test_store_life.py::test_a_stuck_store_does_not_feed_its_watchdog",),
    ),
    Break(
        ("W3",),
        "the shipped proxy writes payments into its log",
        "deploy/nginx/paychan.conf",
        "$request_method $uri",
        "$request_method $request_uri",
        (f"{DEPLOYED}::test_a_payment_goes_through_the_proxy_and_stands_in_no_log",),
    ),
    Break(
        ("W4",),
        "the doctor finds nothing in a state directory that everybody may write to",
        "paychan/doctor/permissions.py",
        'if place.mode & stat.S_IWOTH:\n        why = f"everybody may write to {place.path}: who renames',
        'if False:\n        why = f"everybody may write to {place.path}: who renames',
        (
            "tests/unit/doctor/test_verdicts.py::test_state_directory",
            "tests/process/test_doctor.py::test_what_is_broken_is_found",
        ),
    ),
)
