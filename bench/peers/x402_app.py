"""x402's Python middleware, set up as in its own documents: batch-settlement on an EVM chain behind FastAPI. Run in a scratch
installation. Its facilitator refuses every call: vouchers are verified by the middleware itself, against the channels put into its
storage here. STORAGE: memory, or a directory for its files.
"""

import os
import time

from fastapi import FastAPI
from peers_common import ASSET, CHANNELS, DELAY, NETWORK, RECEIVER, SALT, payer
from x402 import x402ResourceServer
from x402.http.middleware.fastapi import payment_middleware
from x402.mechanisms.evm.batch_settlement import ChannelConfig, compute_channel_id
from x402.mechanisms.evm.batch_settlement.server.scheme import BatchSettlementEvmScheme, BatchSettlementEvmSchemeServerConfig
from x402.mechanisms.evm.batch_settlement.server.storage import Channel
from x402.schemas import SupportedKind, SupportedResponse


class NoFacilitator:
    def get_supported(self) -> SupportedResponse:
        kind = SupportedKind(x402_version=2, scheme="batch-settlement", network=NETWORK, extra={"receiverAuthorizer": RECEIVER})
        return SupportedResponse(kinds=[kind])

    async def verify(self, *_: object):
        raise AssertionError("the facilitator was asked")

    settle = verify


def storage():
    if os.environ.get("STORAGE", "memory") == "memory":
        return None
    from x402.mechanisms.evm.batch_settlement.server.file_storage import FileChannelStorage

    return FileChannelStorage(os.environ["STORAGE"])


scheme = BatchSettlementEvmScheme(
    RECEIVER,
    BatchSettlementEvmSchemeServerConfig(storage=storage(), withdraw_delay=DELAY, onchain_state_ttl_ms=24 * 3600 * 1000),
)
for number in range(CHANNELS):
    address = payer(number).address
    config = ChannelConfig(
        payer=address,
        payer_authorizer=address,
        receiver=RECEIVER,
        receiver_authorizer=RECEIVER,
        token=ASSET,
        withdraw_delay=DELAY,
        salt=SALT,
    )
    name = compute_channel_id(config, NETWORK).lower()
    now = int(time.time() * 1000)
    record = Channel(channel_id=name, channel_config=config, balance=str(10**12), onchain_synced_at=now, last_request_timestamp=now)
    scheme.get_storage().update_channel(name, lambda _, record=record: record)
server = x402ResourceServer(NoFacilitator()).register(NETWORK, scheme)
offer = {"scheme": "batch-settlement", "network": NETWORK, "payTo": RECEIVER, "price": {"amount": "1", "asset": ASSET}}
app = FastAPI()
app.middleware("http")(payment_middleware({"GET /paid": {"accepts": offer}}, server))


@app.get("/paid")
async def paid() -> dict:
    return {"ok": True}


@app.get("/free")
async def free() -> dict:
    return {"ok": True}
