"""An MCP server whose tools cost satoshis, with the MCP SDK. Against a server in debug mode, which moves no money:

    ./runEverything.sh config/debug/
    .venv/bin/pip install mcp
    .venv/bin/granian --interface asgi --port 8080 examples.sell_mcp:app

then, in another terminal, examples/buy_mcp.py. A server over standard input and output ends with `server.run()` instead of `app`.
"""

from mcp.server import MCPServer

from paychan.sell.mcpserver import Till

till = Till("state/debug/run/sell.sock", {"shout": 3}, realm="words")  # satoshi a call; what is not listed is free
server = MCPServer("words", extensions=[till])


@server.tool()
def shout(text: str) -> str:
    """Say it louder. Costs 3 satoshi."""
    return text.upper()


@server.tool()
def count(text: str) -> int:
    """Count the letters. Free."""
    return len(text)


app = server.streamable_http_app()
