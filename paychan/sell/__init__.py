"""The seller's middleware: a price before any handler, paid with Bitcoin channels under the `Payment` HTTP scheme.

    from paychan.sell.fastapi import Till

    till = Till(app, "state/debug/run/sell.sock")

    @app.get("/joke", dependencies=[till.price(5)])     # satoshi

`fastapi`, `flask`, `django` have the sugar; `asgi`, `rsgi`, `wsgi` take any application of their kind, and a list of prices. Behind
all of them is one till (`till`): it knows no framework and no socket, and asks the sellers' door of a paychan server (`door`),
which has everything that is charged on its disk before it answers. docs/SELLING.md is for users.
"""
