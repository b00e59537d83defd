"""An MCP server whose tools cost satoshis. Against a server in debug mode, which moves no money:

    ./runEverything.sh config/debug/
    .venv/bin/pip install fastapi
    .venv/bin/granian --interface asgi --port 8080 examples.sell_mcp:app

then, in another terminal, examples/buy_mcp.py. It answers MCP's requests at /mcp by hand, to show that no SDK is needed for it.
With one, call `till.call` where it has you run a tool.
"""

from typing import Any

from fastapi import FastAPI, Response

from paychan.sell.mcp import PaymentError, Till

PRICES = {"shout": 3, "count": None}  # satoshi a call; None is free
TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
TOOLS = [
    {"name": "shout", "description": "Say it louder. Costs 3 satoshi.", "inputSchema": TEXT},
    {"name": "count", "description": "Count the letters. Free.", "inputSchema": TEXT},
]

app = FastAPI()
till = Till("state/debug/run/sell.sock", realm="words")


async def run(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run a tool. A result with `isError` costs nothing."""
    text = arguments.get("text")
    if not isinstance(text, str):
        return {"content": [{"type": "text", "text": "text is missing"}], "isError": True}
    said = text.upper() if name == "shout" else str(len(text))
    return {"content": [{"type": "text", "text": said}]}


@app.post("/mcp")
async def mcp(message: dict[str, Any]) -> Any:
    """Answer one JSON-RPC message."""
    number, method, params = message.get("id"), message.get("method"), message.get("params") or {}
    if number is None:
        return Response(status_code=202)  # a notification
    if method == "initialize":
        result = {
            "protocolVersion": params.get("protocolVersion", "2025-06-18"),
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "words", "version": "1"},
        }
        return {"jsonrpc": "2.0", "id": number, "result": result}
    if method == "tools/list":
        return {"jsonrpc": "2.0", "id": number, "result": {"tools": TOOLS}}
    if method != "tools/call" or params.get("name") not in PRICES:
        return {"jsonrpc": "2.0", "id": number, "error": {"code": -32601, "message": f"unknown: {method}"}}
    name, arguments = params["name"], params.get("arguments") or {}
    try:
        result = await till.call(name, arguments, params.get("_meta"), PRICES[name], lambda: run(name, arguments))
    except PaymentError as error:
        return {"jsonrpc": "2.0", "id": number, "error": error.as_object()}
    return {"jsonrpc": "2.0", "id": number, "result": result}
