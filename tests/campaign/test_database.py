"""The short form of the campaign against the database below a store: each fault at primary and standbys once, under load through
all doors, and nothing acknowledged is lost or counted twice. PAYCHAN_DATABASE_CYCLES sets how many; `python -m
tests.campaign.kill` tells more."""

import os
import subprocess
import sys

from tests import postgres
from tests.campaign.database import VICTIMS
from tests.system import ROOT, STORE_VARIABLE

CYCLES = int(os.environ.get("PAYCHAN_DATABASE_CYCLES", "4"))

pytestmark = postgres.needed


def test_no_fault_of_the_database_loses_a_payment():
    plan = ["--cycles", str(CYCLES), "--fault", "kill,stop", "--victim", ",".join(VICTIMS)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.campaign.kill", *plan],
        cwd=ROOT,
        env={**os.environ, STORE_VARIABLE: "postgres"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert f"{CYCLES} cycles, " in done.stdout and "lost 0, double 0, problems 0" in done.stdout
