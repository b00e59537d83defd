"""Aim: each route asks for its scope, whatever it does, and nobody else reaches it. Method: the application as granian calls it,
over the whole table and every kind of token; the handlers are replaced by one that notes who came."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from paychan.operator import routes, serving
from paychan.operator.answers import Answer, json_answer
from paychan.operator.context import Context
from paychan.operator.routes import ROUTES, SCOPES, Scope
from paychan.settings.load import load_server_config
from paychan.settings.tokens import SCOPES as ALL_SCOPES
from paychan.settings.tokens import SELLERS_SCOPES, Token, digest, make_token, write_tokens
from tests.operating import filled
from tests.system import ROOT

EACH = pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")


class Headers(dict):
    def get_all(self, name):
        return [value for key, value in self.items() if key == name]


class App:
    def __init__(self, directory, monkeypatch):
        config = load_server_config(ROOT / "config" / "debug" / "server.toml", {"PAYCHAN_STATE_DIR": str(directory)})
        operator = replace(config.operator, port=1, tokens_file=directory / "tokens")
        self.tokens = {scope: make_token() for scope in ALL_SCOPES}
        self.file = operator.tokens_file
        write_tokens(self.file, [Token(f"a-{scope}", scope, digest(token)) for scope, token in self.tokens.items()])
        self.app = serving.App(Context(directory, replace(config, operator=operator), None))
        self.came = []
        monkeypatch.setattr(routes, "ROUTES", tuple(replace(route, handler=self._note) for route in ROUTES))

    async def _note(self, _, request) -> Answer:
        self.came.append(request.who)
        return json_answer({})

    def ask(self, route, authorization=None, body=b"{}"):
        """Return the answer's status."""
        takes_body = route.method in ("POST", "PUT", "PATCH")
        headers = Headers({"content-length": str(len(body))} if takes_body else {})
        if authorization is not None:
            headers["authorization"] = authorization
        scope = SimpleNamespace(method=route.method, path=filled(route), query_string="", headers=headers)

        async def read():
            return body

        return asyncio.run(self.app._answer(scope, read)).status


@pytest.fixture
def app(tmp_path, monkeypatch):
    return App(tmp_path, monkeypatch)


@EACH
def test_a_token_of_each_scope_reaches_what_it_may_and_nothing_else(app, route):
    for scope, token in app.tokens.items():
        app.came.clear()
        status = app.ask(route, f"Bearer {token}")
        if SCOPES.get(scope, Scope.NONE) >= route.scope:
            assert (status, app.came) == (200, [f"a-{scope}" if route.scope else ""]), scope
        else:
            assert (status, app.came) == (403, []), scope


@EACH
def test_whoever_shows_no_good_token_reaches_nothing(app, route):
    steer = app.tokens["steer"]
    wrong = (None, "", "Bearer", "Bearer ", "Bearer pct_x", f"Basic {steer}", steer, f"Bearer {digest(steer)}", f"Bearer {steer}x")
    for shown in wrong:
        assert app.ask(route, shown) == (200 if route.scope is Scope.NONE else 401), shown
    assert len(app.came) == (9 if route.scope is Scope.NONE else 0)


def test_a_revoked_token_and_a_file_that_does_not_read_are_good_for_nothing(app):
    route, token = ROUTES[0], app.tokens["watch"]
    assert app.ask(route, f"Bearer {token}") == 200
    write_tokens(app.file, [Token("a", "watch", digest(app.tokens["steer"]))])
    assert app.ask(route, f"Bearer {token}") == 401
    app.file.write_text("nonsense\n")
    assert app.ask(route, f"Bearer {app.tokens['steer']}") == 401


def test_what_changes_something_takes_more_than_a_watching_token():
    for route in ROUTES:
        assert route.method == "GET" or route.scope >= Scope.SETTLE, route.path
        assert route.scope is not Scope.NONE or not route.path.startswith("/operator/v1/") or route.path.endswith("openapi.json")


def test_sellers_scopes_are_none_here():
    assert set(SCOPES) | set(SELLERS_SCOPES) == set(ALL_SCOPES) and not set(SCOPES) & set(SELLERS_SCOPES)
