"""Aim: the operator's API answers as its description says, whatever it is sent. Method: schemathesis against a real system, with a
token of the highest scope. What it makes may freeze openings and set limits: nothing else uses that system."""

import json

from tests.operating import operated


def test_it_publishes_its_description_and_answers_as_it_says(tmp_path):
    from tests.hostile.openapi import examine

    with operated(tmp_path) as (system, operators):
        steer = operators["steer"]
        headers = {"Authorization": f"Bearer {steer.token}"}
        found = examine(f"http://127.0.0.1:{steer.port}", 7, path="/operator/v1/openapi.json", headers=headers)
        described = json.loads(steer.ask("GET", "/openapi.json").body)["paths"]
        wanted = {f"{method.upper()} {path}" for path, item in described.items() for method in item}
        assert wanted - set(found) <= {"GET /operator/v1/openapi.json"}
        assert sum(sum(statuses.values()) for statuses in found.values()) > 60
        assert steer.ask("GET", "/status").status == 200
        assert not any("Traceback" in line or "internal error" in line for line in system.output)
