"""The shop of x402_shop.py in Flask, where x402's middleware and facilitator client block."""

import os

from flask import Flask, abort
from x402 import x402ResourceServerSync
from x402.http.middleware.flask import payment_middleware

from paychan.sell.x402 import ChannelScheme, facilitator, patient_wsgi

calls = facilitator(os.environ["DOOR"], os.environ["TOKEN"], is_async=False)
server = x402ResourceServerSync(calls).register("bip122:*", ChannelScheme(calls))
offer = {"accepts": {"scheme": "batch-settlement", "network": os.environ["NETWORK"], "payTo": "", "price": 5}}
app = Flask(__name__)
payment_middleware(app, {"GET /news/:name": offer, "GET /fails": offer}, server)
app.wsgi_app = patient_wsgi(app.wsgi_app)


@app.get("/news/<name>")
def news(name: str) -> dict:
    with open(os.environ["SERVED"], "a") as file:
        file.write(f"{name}\n")
    return {"news": name}


@app.get("/fails")
def fails() -> dict:
    abort(500)


@app.get("/free")
def free() -> dict:
    return {"free": True}


if __name__ == "__main__":
    app.run(port=int(os.environ["PORT"]), threaded=True)
