"""Aim: what we sign, others verify. Method: the reference implementation of Standard Webhooks, and the example of its
specification."""

import base64
import time

import pytest
import standardwebhooks

from paychan.events.endpoint import key_of, make_secret
from paychan.webhooks.signature import fields, sign

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_example_of_the_specification():
    body = b'{"test": 2432232314}'
    wanted = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert sign(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == wanted


def verifies(secret, body, head):
    try:
        standardwebhooks.Webhook(secret).verify(body, head)
    except standardwebhooks.WebhookVerificationError:
        return False
    return True


@pytest.mark.parametrize("size", [24, 32, 64])
def test_the_reference_verifies_ours_and_refuses_other_bytes(size):
    secret, body, now = make_secret(bytes(range(size))), b'{"id":7}', int(time.time())
    head = fields(secret, "evt_7", now, body)
    assert verifies(secret, body.decode(), head)
    for wrong in ({"webhook-id": "evt_8"}, {"webhook-timestamp": str(now + 1)}):
        assert not verifies(secret, body.decode(), head | wrong)
    assert not verifies(secret, '{"id":8}', head)


@pytest.mark.parametrize("size", [0, 23, 65])
def test_a_secret_of_another_size_is_none(size):
    with pytest.raises(ValueError, match="must be"):
        key_of("whsec_" + base64.b64encode(bytes(size)).decode())


@pytest.mark.parametrize("text", ["", "whsec_", "x" * 40, "whsec_" + "é" * 40, base64.b64encode(bytes(32)).decode()])
def test_other_texts_are_no_secrets(text):
    with pytest.raises(ValueError, match="must be"):
        key_of(text)
