"""Aim: a settlement that was signed before a crash, when fees were higher, is still completed. Method: the signer signs first with
a higher fee for another client of its socket, as if the server had lost the answer; then the payer closes."""

import asyncio

from paychan.rpc.connection import Address
from paychan.rpc.signer_client import SignerClient
from tests.system import running


def test_a_channel_whose_lost_signature_had_a_higher_fee_is_settled_with_that_fee(tmp_path):
    with running(tmp_path) as system:
        payer = system.payer("signed before")
        assert payer.open(1_000_000).status == 201
        lost_fee = 40 * 348 + 12_345

        async def sign_as_if_the_answer_were_lost() -> bytes:
            client = SignerClient(Address(path=str(system.state_dir / "run" / "signer.sock")))
            client.link.start()
            while not client.link.is_up:
                await asyncio.sleep(0.01)
            transaction = await client.settle(payer.sender.terms, payer.newest, lost_fee, b"")
            await client.link.stop()
            return transaction

        transaction = asyncio.run(sign_as_if_the_answer_were_lost())
        answer = payer.close()
        assert answer.status == 202
        assert system.broadcast() == {answer.json["settlement_txid"]: transaction}
