"""The short form of the campaign against several active stores: some faults at database, stores and machines under load, and
nothing acknowledged is lost or counted twice. PAYCHAN_STORES_CYCLES sets how many; `python -m tests.campaign.stores` tells more."""

import os
import subprocess
import sys

from tests import postgres
from tests.certificates import need_openssl
from tests.system import ROOT

CYCLES = int(os.environ.get("PAYCHAN_STORES_CYCLES", "2"))

pytestmark = postgres.needed


def test_no_fault_of_a_cluster_loses_a_payment():
    need_openssl()
    plan = ["--cycles", str(CYCLES), "--fault", "kill,stop", "--victim", "store,machine,primary,worker"]
    command = [sys.executable, "-m", "tests.campaign.stores", *plan]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert f"{CYCLES} cycles, " in done.stdout and "lost 0, double 0, problems 0" in done.stdout
