"""x402 for tests: what a payer shows and a seller's middleware asks, made by hand, so that each part can be made wrong."""

import json

from paychan.mpp.text import format_channel_id
from tests.selling import Seller, text_of
from tests.system import Answer


class Facilitator:
    """Asks the sellers' door as x402's facilitator client does."""

    def __init__(self, seller: Seller) -> None:
        self.seller = seller
        (self.kind,) = seller.request("GET", "/x402/supported").json["kinds"]

    def requirements(self, amount: int, **extra: object) -> dict:
        return {
            "scheme": self.kind["scheme"],
            "network": self.kind["network"],
            "asset": "sat",
            "amount": str(amount),
            "payTo": self.kind["extra"]["payTo"],
            "maxTimeoutSeconds": 60,
            "extra": extra,
        }

    def ask(self, call: str, wants: dict, payload: dict) -> Answer:
        """Ask, with what the payer shows for these requirements."""
        outer = {"x402Version": 2, "payload": payload, "accepted": {**wants, "extra": {}}}
        return self.post(call, {"x402Version": 2, "paymentPayload": outer, "paymentRequirements": wants})

    def post(self, call: str, content: object) -> Answer:
        return self.seller.request("POST", f"/x402/{call}", json.dumps(content).encode())

    def settle(self, amount: int, payload: dict, **extra: object) -> dict:
        answer = self.ask("settle", self.requirements(amount, **extra), payload)
        assert answer.status == 200, answer.body
        return answer.json

    def verify(self, amount: int, payload: dict) -> dict:
        answer = self.ask("verify", self.requirements(amount), payload)
        assert answer.status == 200, answer.body
        return answer.json


def channel_id(payer) -> str:
    return format_channel_id(payer.sender.terms.outpoint)


def voucher(payer, payment, kind: str = "voucher", **more: object) -> dict:
    return {"type": kind, "channelId": channel_id(payer), "payment": text_of(payment), **more}


def opening(payer, payment, **more: object) -> dict:
    terms = payer.sender.terms
    about = {"clientPubkey": terms.client_pubkey.hex(), "expTime": terms.exp_time, "changeAddress": payer.sender.change_address}
    return voucher(payer, payment, "open", **{**about, **more})
