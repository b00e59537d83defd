"""Aim: no two tests are given one port. Method: several processes that ask for the same few ports at once."""

import json
import subprocess
import sys

from tests import ports
from tests.system import ROOT

ASK = """
import json, sys
from tests import ports
ports.SINGLE = range(*map(int, sys.argv[1:3]))
print(json.dumps([ports.free_port() for _ in range(5)]), flush=True)
sys.stdin.read()
"""


def test_what_one_process_was_given_no_other_one_is():
    few = ports.free_port()
    call = [sys.executable, "-c", ASK, str(few), str(few + 16)]
    asking = [subprocess.Popen(call, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    given = [port for process in asking for port in json.loads(process.stdout.readline())]
    for process in asking:
        process.communicate()
    assert len(set(given)) == 10
    assert few not in given
    assert set(given) <= set(range(few, few + 16))
