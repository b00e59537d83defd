"""A payer for httpx2; all else is as paychan.pay.httpx says:

from paychan.pay.httpx2 import Payer

client = httpx2.Client(auth=Payer("purse/"))
"""

import httpx2

from .auth import AuthFlow


class Payer(AuthFlow, httpx2.Auth):
    """See paychan.pay.payer.Payer for its arguments."""
