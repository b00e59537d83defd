"""The compiled hot path. Each rule that lives here lives nowhere else; `tests/reference.py` is its slow judge."""
