"""Gateway configurations for unit tests: written as TOML, read as an operator's file is."""

from paychan.core.errors import ConfigError
from paychan.gateway.load import load_gateway_config

HEAD = """
[gateway]
realm = "api.example.com"
[seller]
socket = "/run/sell.sock"
token_file = "gateway.token"
[upstreams.api]
url = "http://127.0.0.1:3000"
"""


def load(directory, text, head=HEAD):
    """Return the configuration in a file of `text` behind `head`."""
    file = directory / "gateway.toml"
    file.write_text(head + text)
    return load_gateway_config(file)


def complaints(directory, text, head=HEAD):
    """Return what is wrong with it, a line each, without the file's name."""
    try:
        load(directory, text, head)
    except ConfigError as error:
        return [line.split(": ", 1)[1] for line in error.problems]
    return []


def routes(directory, *lines):
    """Return the routes of a file: each line is a path and what else a route has, separated by " | "."""
    text = "".join("[[routes]]\npath = " + line.replace(" | ", "\n") + "\n" for line in lines)
    return load(directory, text).routes
