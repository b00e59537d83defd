"""Requests made from the published description of v1, against a server: every answer conforms to it, and none is 500.

    python -m tests.hostile.openapi --examples 2000        # starts a debug system of its own; both doors
    python -m tests.hostile.openapi --examples 200 --url http://127.0.0.1:8000

schemathesis makes the requests, right ones and wrong ones, and judges status, headers, content type and body. Not asked: that right
parameters are accepted (a signature cannot be guessed), and that wrong ones are refused (unknown ones are ignored, by design).
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as with_seed
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [status_code_conformance, content_type_conformance, response_headers_conformance, response_schema_conformance]


def description(url: str, path: str, headers: dict[str, str]):
    """Return the schema that the server at `url` publishes."""
    return schemathesis.openapi.from_url(f"{url}{path}", headers=headers)


def examine(
    url: str, examples: int, seed: int = 1, path: str = "/v1/openapi.json", headers: dict[str, str] | None = None
) -> dict[str, dict[int, int]]:
    """Send so many requests of each kind to each operation; return how often each status came. Raises what a check finds.

    path: where the description is. headers: of every request, also of that for the description.
    """
    found: dict[str, dict[int, int]] = {}
    for result in description(url, path, headers or {}).get_all_operations():
        operation = result.ok()
        statuses = found.setdefault(f"{operation.method.upper()} {operation.path}", {})
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            try:
                strategy = operation.as_strategy(generation_mode=mode)
                _try_all(strategy, url, examples, seed, statuses, headers)
            except Exception as error:
                if (
                    "Impossible to generate" in str(error)
                    or "is empty" in str(error)
                    or type(error).__name__ in ("Unsatisfiable", "SkipTest")
                ):
                    continue  # nothing can be wrong with an operation without parameters
                raise
    return found


def _try_all(
    strategy, url: str, examples: int, seed: int, statuses: dict[int, int], headers: dict[str, str] | None
) -> None:
    @with_seed(seed)
    @settings(max_examples=examples, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(case=strategy)
    def run(case) -> None:
        response = case.call(base_url=url, headers=headers)
        statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
        assert response.status_code < 500 or response.status_code in (501, 503, 505), response.status_code
        assert b"Traceback" not in response.content
        assert response.status_code != 503 or b"Internal error" not in response.content, "a bug of ours"
        case.validate_response(response, checks=CHECKS)

    run()


def main(arguments: list[str]) -> int:
    from tests.ports import free_port
    from tests.system import running

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=500, help="of each kind (right, wrong), for each operation and door")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--url", help="of a server that runs; else one is started")
    options = parser.parse_args(arguments)
    if options.url:
        print(json.dumps(examine(options.url, options.examples, options.seed), indent=1))
        return 0
    base = free_port()
    with (
        tempfile.TemporaryDirectory() as directory,
        running(Path(directory), changes={"server.toml": {"base_port": f"base_port = {base}"}}) as system,
    ):
        for name, port in (("shared", system.port), ("own", base)):
            found = examine(f"http://127.0.0.1:{port}", options.examples, options.seed)
            print(f"{name} port: {sum(sum(statuses.values()) for statuses in found.values())} requests, every answer conforms")
            for operation, statuses in found.items():
                print(f"  {operation:50} {dict(sorted(statuses.items()))}")
        assert not any("Traceback" in line or "internal error" in line for line in system.output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
