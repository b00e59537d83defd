"""Signs vouchers for x402_app.py, by x402's own client: `python x402_requests.py URL CONNECTIONS FIRST CALLS` prints a JSON
list, for each connection the values of PAYMENT-SIGNATURE in order, beginning with its FIRSTth call."""

import json
import sys

import httpx
from peers_common import NETWORK, SALT, payer
from x402.http.utils import decode_payment_required_header, encode_payment_signature_header
from x402.mechanisms.evm.batch_settlement.client.config import BatchSettlementEvmSchemeOptions
from x402.mechanisms.evm.batch_settlement.client.scheme import BatchSettlementEvmScheme
from x402.mechanisms.evm.batch_settlement.client.storage import BatchSettlementClientContext, InMemoryClientChannelStorage
from x402.mechanisms.evm.batch_settlement.utils import compute_channel_id
from x402.schemas import PaymentPayload


def headers(url: str, number: int, first: int, calls: int) -> list[str]:
    required = decode_payment_required_header(httpx.get(url).headers["payment-required"])
    accepted, storage = required.accepts[0], InMemoryClientChannelStorage()
    scheme = BatchSettlementEvmScheme(payer(number), BatchSettlementEvmSchemeOptions(storage=storage, salt=SALT))
    name = compute_channel_id(scheme.build_channel_config(accepted), NETWORK).lower()
    made = []
    for call in range(first, first + calls):
        context = BatchSettlementClientContext(charged_cumulative_amount=str(call), balance=str(10**12), total_claimed="0")
        storage.set(name, context)
        payload = PaymentPayload(payload=scheme.create_payment_payload(accepted), accepted=accepted, resource=required.resource)
        made.append(encode_payment_signature_header(payload))
    return made


url, connections, first, calls = sys.argv[1], *map(int, sys.argv[2:5])
print(json.dumps([headers(url, number, first, calls) for number in range(connections)]))
