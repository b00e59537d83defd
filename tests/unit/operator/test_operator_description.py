"""Aim: the API's description has what the table of routes has. Method: both are compared, and its references followed. What is
answered is held to it by tests/hostile/test_operator_openapi.py."""

import json
from pathlib import Path

from paychan.core.errors import BY_CODE
from paychan.operator import routes
from paychan.operator.routes import ROUTES, SCOPES
from paychan.settings.steering import LIMITS

DESCRIPTION = json.loads(Path(routes.__file__).with_name("openapi.json").read_text())
API = "/operator/v1/"


def test_every_route_is_described_with_its_scope_and_no_other():
    names = {rank: name for name, rank in SCOPES.items()}
    table = {(route.method.lower(), route.path): [names[route.scope]] if route.scope else [] for route in ROUTES}
    table = {key: scopes for key, scopes in table.items() if key[1].startswith(API)}
    described = {
        (method, path): [scope for row in operation["security"] for scope in row["token"]]
        for path, item in DESCRIPTION["paths"].items()
        for method, operation in item.items()
    }
    assert described == table


def test_codes_are_those_of_the_table_and_all_of_an_operators_are_told():
    told = {}
    for response in DESCRIPTION["components"]["responses"].values():
        properties = response["content"]["application/problem+json"]["schema"]["allOf"][1]["properties"]
        told |= dict.fromkeys(properties["code"]["enum"], properties["status"]["const"])
    assert told.items() <= {row.code: row.status for row in BY_CODE.values()}.items()
    assert {row.code for row in BY_CODE.values() if row.number >= 140} <= set(told)


def test_the_limits_are_those_that_there_are():
    assert list(DESCRIPTION["components"]["schemas"]["Limits"]["properties"]) == list(LIMITS)
    patch = DESCRIPTION["paths"]["/operator/v1/limits"]["patch"]["requestBody"]["content"]["application/json"]["schema"]
    most = {name: row["maximum"] for name, row in patch["properties"].items()}
    assert most == {name: limit.most for name, limit in LIMITS.items()}
