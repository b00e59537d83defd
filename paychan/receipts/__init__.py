"""Signed receipts: what was bought, for what, by which payment; each names the one before it, so a channel's history is a chain.

    from paychan.receipts.claims import Bought
    from paychan.receipts.issuer import Issuer
    from paychan.receipts.verify import examine

docs/RECEIPTS.md has the form. `claims` and `chain` are pure and know no signatures; the others need joserfc (paychan[receipts]).
"""
