"""A shop in Flask. With a server in debug mode running (`./runEverything.sh config/debug/`):

granian --interface wsgi flask_shop:app --port 9000
"""

import os

from flask import Flask

from paychan.sell.flask import Price, Till

app = Flask("shop")
till = Till(os.environ.get("SELL_AT", "state/debug/run/sell.sock"))


@app.get("/joke")
@till.price(5)  # satoshi
def joke() -> dict:
    return {"joke": "Why do channels never argue? They settle."}


@app.get("/answer")
@till.price(Price(1, units=100, unit="word", is_metered=True))  # a hundred are held, what is used is charged
def answer() -> str:
    text = "forty-two words would be dear"
    till.use(len(text.split()))
    return text
