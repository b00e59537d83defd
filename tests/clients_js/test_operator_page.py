"""Aim: the operator's page works in a real browser over a real system. Method: clients/js/test/live/operator.test.js drives
Chromium, while payers pay."""

import threading

from tests.clients_js.package import run_tests
from tests.clients_js.test_page import browser, pictures
from tests.operator_page import SCOPES, with_page
from tests.system import Payer

__all__ = ["browser"]  # a fixture of the page's test beside this one

HOUR = 3600
CHANNELS = 8


def keep_paying(payers: list[Payer], stop: threading.Event) -> None:
    while not stop.wait(0.2):
        for payer in payers:
            payer.pay(3)


def test_the_operators_page(browser, tmp_path):  # noqa: F811  # the fixture's name
    with with_page(tmp_path) as page:
        payers = [page.system.payer(f"page {number}", expires_in=(9 + 20 * number) * HOUR) for number in range(CHANNELS)]
        for number, payer in enumerate(payers):
            assert payer.open(100_000 + 1000 * number).status == 201
        assert payers[-1].close().status == 202
        stop = threading.Event()
        # The first in the list is settled by the test: it is not paid.
        paying = threading.Thread(target=keep_paying, args=(payers[2:-1], stop))
        paying.start()
        try:
            env = {"PAYCHAN_OPERATOR_URL": page.url, "PAYCHAN_OPERATOR_TOKENS": " ".join(page.tokens[scope] for scope in SCOPES)}
            run_tests("live/operator.test.js", **env, **pictures("operator"), **browser)
        finally:
            stop.set()
            paying.join()
