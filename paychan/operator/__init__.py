"""The operator's API and page, in a process of its own: nothing of it can slow a payment. docs/OPERATOR_API.md is for who uses it.

granian loads `paychan.operator:app`; it is made when it is first asked for, so that importing the package's modules reads no
configuration.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "app":
        from .serving import make_app

        globals()["app"] = application = make_app()
        return application
    raise AttributeError(name)
