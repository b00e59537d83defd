"""The limit of HTTP itself, H: the same server with the same flags, whose answer to everything is one constant payment result.

`python -m bench.load.constant FILE`: as `paychan-server FILE`, but granian loads this module's application instead.
"""

import sys
from typing import Any

import paychan.server.serving as program

VALUE_LEFT = 12_345_678_799_999
BODY = b'{"channel_status":"open","channel_value_left":%d,"value_received":1,"settlement_txid":null}\n' % VALUE_LEFT
HEADERS = [
    ("content-type", "application/json"),
    ("access-control-allow-origin", "*"),
    ("access-control-allow-methods", "GET,POST,PUT,DELETE"),
    ("access-control-allow-headers", "Origin,Accept,Content-Type"),
    ("access-control-expose-headers", "Location"),
    ("cache-control", "no-store"),
]
"""A payment's, byte for byte; the tests compare them with the server's."""


class App:
    """Answers without looking."""

    def __rsgi_init__(self, _: Any) -> None:
        from paychan.server.process import end_with_parent

        end_with_parent()

    async def __rsgi__(self, _: Any, proto: Any) -> None:
        proto.response_bytes(200, HEADERS, BODY)


app = App()


def main() -> int:
    """Run the server's own program with another application."""
    granian = program.Granian
    program.Granian = lambda _, **flags: granian("bench.load.constant:app", **flags)  # type: ignore[misc, assignment]
    return program.main()


if __name__ == "__main__":
    sys.exit(main())
