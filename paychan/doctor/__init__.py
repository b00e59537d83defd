"""`paychan doctor`: everything that can be wrong on this machine, asked for real; nothing is changed.

Each subject has a module: functions that ask (they take a `Machine`), and pure functions that judge what was found. `examine.py`
runs them, each apart from the others; `verdicts.py` has their common form.
"""
