"""Aim: the demo page works for a visitor, in a real browser over real processes. Method: clients/js/test/live/page.test.js drives
Chromium over the example shop: in debug mode, and with coins of a real node on regtest."""

import os
import re
import shutil

import pytest

from signer.keys import create_key
from tests.clients_js.package import run_tests
from tests.clients_js.shop_process import shop_of
from tests.node.bcoin_node import Node
from tests.ports import free_port
from tests.selling import SOCKET, sell_changes
from tests.system import ROOT, System, running

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser():
    """The variables that say which browser to drive, and where pictures go if somebody wants some."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    return {"PAYCHAN_CHROMIUM": found}


def pictures(name: str) -> dict[str, str]:
    """Return where pictures of this run go: below PAYCHAN_SCREENSHOTS, if that is set."""
    directory = os.environ.get("PAYCHAN_SCREENSHOTS")
    if not directory:
        return {}
    os.makedirs(os.path.join(directory, name), exist_ok=True)
    return {"PAYCHAN_SCREENSHOTS": os.path.join(directory, name)}


def test_the_page_in_debug_mode(browser, tmp_path):
    with running(tmp_path, changes=sell_changes(SOCKET)) as system, shop_of(system, output=tmp_path / "shop.log") as shop:
        run_tests("live/page.test.js", PAYCHAN_SHOP_URL=shop, **pictures("debug"), **browser)


def test_the_page_on_regtest(browser, tmp_path):
    config, state = tmp_path / "config", tmp_path / "state"
    shutil.copytree(ROOT / "config" / "regtest", config)
    state.mkdir(mode=0o700)
    with Node() as node:
        node.mine(110)
        (state / "node.cookie").write_text(f"x:{node.api_key}")
        server = config / "server.toml"
        text = re.sub(r"(?m)^port = 18443", f"port = {node.port}", server.read_text())
        server.write_text(text.replace("[processes]", f"[sell]\n{SOCKET}\n\n[processes]"))
        create_key(state / "signer.key")
        system = System(state, config, free_port())
        try:
            system.start()
            with shop_of(system, regtest=config, output=tmp_path / "shop.log") as shop:
                env = {"PAYCHAN_SHOP_URL": shop, "PAYCHAN_IS_REGTEST": "yes"}
                run_tests("live/page.test.js", **env, **pictures("regtest"), **browser)
        finally:
            system.stop()
