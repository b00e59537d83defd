"""`python -m bench.load.unsynced_store FILE`: the store without sync, to measure what sync costs. It lives here, as no real store
may ever acknowledge what a crash loses; outside debug mode it refuses.
"""

import contextlib
import functools
import sys

import store.serving as program
from paychan.core.errors import ConfigError
from paychan.exits import EXIT_BAD_CONFIG
from paychan.printing import say
from paychan.settings.load import load_store_config


def main() -> int:
    """Run the store's own program on an engine that does not wait for the disk."""
    with contextlib.suppress(ConfigError, IndexError):  # which the program says itself
        if not load_store_config(sys.argv[1]).common.debug:
            say("unsynced_store: this is for measuring, in debug mode only")
            return EXIT_BAD_CONFIG
    program.Engine = functools.partial(program.Engine, sync=False)  # type: ignore[misc]
    return program.main()


if __name__ == "__main__":
    sys.exit(main())
