"""Aim: while the link between two machines is cut, each serves what it owns and tells the payers of the other's channels to come
again; nothing is lost or counted twice, and once healed all is well by itself. Method: tests/cut_link.py, in network namespaces.
"""

import shutil
import subprocess
import sys

import pytest

from tests.system import ROOT


def test_a_cut_link_costs_nobody_anything(tmp_path):
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("no unshare or no ip here")
    made = ("netns add trial", "link add name bridge type bridge", "link add name one type veth peer name other")
    trial = " && ".join(["mount -t tmpfs none /run", *(f"ip {what}" for what in made)])
    tried = subprocess.run(["unshare", "-Urnm", "sh", "-c", trial], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"this kernel lets nobody make networks: {' '.join(tried.stderr.split())[:200]}")
    command = ["unshare", "-Urnm", sys.executable, "-m", "tests.cut_link", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    print(done.stdout)
