"""Clients that pay by themselves, out of a purse: docs/PAYING.md.

    from paychan.pay.httpx import Payer         # or .httpx2, .requests, .aiohttp, .plain; .pympp for MPP's SDK
    from paychan.pay import Budget

    client = httpx.Client(auth=Payer("purse/", Budget(request=50)))

Each adapter imports its library alone. What the others share is here.
"""

from .budget import Budget, Question
from .errors import BudgetExceeded, FundingNeeded, NotYetConfirmed, PurseBusy, TermsRefused
from .purse import Purse
from .terms import Terms, read_terms

__all__ = [
    "Budget",
    "BudgetExceeded",
    "FundingNeeded",
    "NotYetConfirmed",
    "Purse",
    "PurseBusy",
    "Question",
    "Terms",
    "TermsRefused",
    "read_terms",
]
