"""The server through granian's public interface, to measure what our own door in granian brings.

`python -m bench.load.public_way FILE`: as `paychan-server FILE`, but granian is given a wrapper of the application. That is what it
makes itself to write an access log, and our door leaves granian as it is then; here nothing is written.
"""

import sys
from typing import Any

import paychan.server.serving as program
from paychan.server.app import App, make_app


class Wrapped:
    """Calls the application, and is not it."""

    def __init__(self, application: App) -> None:
        self.__rsgi_init__ = application.__rsgi_init__
        self.__rsgi_del__ = application.__rsgi_del__
        self.__rsgi__ = lambda scope, proto: application.__rsgi__(scope, proto)


def make() -> Wrapped:
    """Return what granian serves in each worker."""
    return Wrapped(make_app())


def main() -> int:
    """Run the server's own program with the wrapper."""
    granian = program.Granian

    def wrapping(_: str, **options: Any) -> Any:
        return granian("bench.load.public_way:make", factory=True, **options)

    program.Granian = wrapping  # type: ignore[misc, assignment]
    return program.main()


if __name__ == "__main__":
    sys.exit(main())
