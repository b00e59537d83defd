"""Aim: the suite runs on the build it claims to run on. Method: slips that the checked build (PAYCHAN_DEBUG=1) must raise
for are made on purpose; what is imported must be what that environment variable says."""

import importlib
import os
import re
from pathlib import Path

import pytest

import paychan
from paychan._fast import meter

CHECKED = os.environ.get("PAYCHAN_DEBUG") == "1"
INT_MAX = 2**31 - 1
ROOT = Path(__file__).parents[3]
FAST = Path(paychan.__file__).parent / "_fast"


def test_overflow_is_checked_exactly_in_the_checked_build():
    if CHECKED:
        with pytest.raises(OverflowError):
            meter.add_ints(INT_MAX, 1)
    else:
        assert meter.add_ints(INT_MAX, 1) == -INT_MAX - 1


def test_bounds_are_checked_in_the_checked_build():
    assert meter.item([1, 2, 3], 2) == 3
    if CHECKED:  # in release this would read foreign memory
        with pytest.raises(IndexError):
            meter.item([1, 2, 3], 3)


def test_every_extension_is_of_one_build():
    sources = sorted((ROOT / "paychan" / "_fast").glob("*.pyx"))
    assert len(sources) == len(list(FAST.glob("*.so")))
    for source in sources:
        module = importlib.import_module(f"paychan._fast.{source.stem}")
        assert Path(module.__file__).parent == FAST


def test_nothing_that_serves_imports_the_meter():
    importing = re.compile(r"import.*\bmeter\b|\bmeter\b.*import")
    files = [file for package in ("paychan", "store", "signer") for file in (ROOT / package).rglob("*.py*")]
    users = [file.name for file in files if file.suffix in (".py", ".pyx", ".pxd") and importing.search(file.read_text())]
    assert users == []


def test_verify_batch_counts_valid_signatures():
    from tests.differential.channels import make_sample
    from tests.reference import sighash

    sample = make_sample("meter")
    good = [sample.sign(value) for value in (700, 701, 702)]
    work = [(paid.signature, sighash(sample.account, paid.change_value, 0x83), sample.terms.client_pubkey) for paid in good]
    assert meter.VerifyBatch(work).run() == 3
    work[1] = (work[0][0], work[1][1], work[1][2])
    assert meter.VerifyBatch(work).run() == 2
    assert meter.VerifyBatch([]).run() == 0
    for bad in [(b"", bytes(32), work[0][2]), (work[0][0], bytes(31), work[0][2]), (work[0][0], bytes(32), bytes(33))]:
        with pytest.raises(ValueError):
            meter.VerifyBatch([bad])
