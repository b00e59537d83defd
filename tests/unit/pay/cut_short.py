"""Buys from a shop in processes that end at one line of what writes: `python -m tests.unit.pay.cut_short PURSE URL FROM TO STEP`.

For each number, a child buys and ends without a word at that line (counted over turn.py, ledger.py, purse.py and the client's
storage.py), and then another child buys in peace. PURSE may have {} in it: then each number has a purse of its own. Prints how many
were cut short, and how many bought.
"""

import os
import sys
from pathlib import Path

from paychan.client import storage
from paychan.pay import ledger, purse, turn
from paychan.pay.budget import NO_LIMITS
from paychan.pay.plain import Payer

WATCHED = {module.__file__ for module in (storage, ledger, purse, turn)}
CUT = 77
os.fsync = lambda _: None  # a process that ends loses nothing of what was written; that power cuts lose is for other tests


def buy(directory: str, url: str, line: int) -> None:
    count = 0

    def trace(frame, event, _):
        if frame.f_code.co_filename not in WATCHED:
            return None
        return step

    def step(frame, event, _):
        nonlocal count
        if event == "line":
            count += 1
            if count == line:
                os._exit(CUT)
        return step

    if line:
        sys.settrace(trace)
    payer = Payer(Path(directory), NO_LIMITS, deadline=5)
    with payer.request("GET", url) as response:
        os._exit(0 if response.status == 200 else 1)


def child(directory: str, url: str, line: int) -> int:
    pid = os.fork()
    if not pid:
        try:
            buy(directory, url, line)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(directory: str, url: str, first: str, last: str, step: str) -> None:
    cut = bought = 0
    for line in range(int(first), int(last), int(step)):
        place = directory.replace("{}", str(line))
        status = child(place, f"{url}/{line}", line)
        assert status in (0, CUT), status
        cut += status == CUT
        bought += status == 0
        assert child(place, f"{url}/{line}", 0) == 0, f"after line {line}"
        if status == 0:
            break  # it has no more lines than that
    print(cut, bought)


if __name__ == "__main__":
    main(*sys.argv[1:])
