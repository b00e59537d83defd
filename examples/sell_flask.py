"""Sell what a Flask application answers. Against a server in debug mode, which moves no money:

    ./runEverything.sh config/debug/
    .venv/bin/pip install flask
    .venv/bin/granian --interface wsgi --port 8080 examples.sell_flask:app

then, in another terminal, examples/buy.py. The lines that sell are marked.
"""

import random

from flask import Flask, jsonify
from flask.typing import ResponseReturnValue

from paychan.sell.flask import Till  # sells

RIDDLES = ("What has keys, and opens no door?", "What is spent, and was never had?", "What falls only, and is money?")

app = Flask(__name__)
till = Till("state/debug/run/sell.sock", realm="Riddles")  # sells


@app.get("/joke")
@till.price(5)  # sells, for 5 satoshi
def joke() -> ResponseReturnValue:
    """Ask a riddle."""
    return jsonify(random.choice(RIDDLES))
