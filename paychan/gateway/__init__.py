"""`paychan gateway`: a price in front of any HTTP server, which is not touched for it. docs/GATEWAY.md is for who runs it.

`granian --interface rsgi --ws paychan.gateway:app` loads `app`; it is made when it is first asked for, so that importing the
package's modules reads no configuration.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "app":
        from .app import make_app

        globals()["app"] = application = make_app()
        return application
    raise AttributeError(name)
