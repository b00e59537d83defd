"""The system broken on purpose, in scratch copies, to see that the campaigns and the fencing count notice.

python -m tests.campaign.breaks [--only WORD]       # some minutes: two of them compile a module
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ("paychan", "store", "signer", "tests", "config", "setup.py", "pyproject.toml")
KILL, FENCING, SALES = "tests.campaign.kill", "tests.campaign.fencing", "tests.campaign.sales"
SAID = ("LOST: ", "TWICE: ", "MISSING: ", "nobody was given", "SERVED FREE: ", "WRONG GOOD: ", "SIGNED AHEAD: ", "NOT RECEIVED: ")
"""What a campaign says of a violation."""


@dataclass(frozen=True)
class Slip:
    """patches: (file, text, its replacement). command: what should find it."""

    patches: tuple[tuple[str, str, str], ...]
    command: tuple[str, ...]


_ACKNOWLEDGED_EARLY = (
    (
        "paychan/server/shards/committer.py",
        'statuses = await self._store.commit(payload) if payload else b""',
        'statuses = bytes(int.from_bytes(payload[:2], "little")) if payload else b""\n'
        "            asyncio.get_running_loop().create_task(self._store.commit(payload))",
    ),
)
SLIPS = {
    "the worker answers before the store does": Slip(
        _ACKNOWLEDGED_EARLY, (KILL, "--cycles", "60", "--fault", "kill,stop", "--victim", "store,worker")
    ),
    "a write whose answer was lost counts as written": Slip(
        (
            (
                "paychan/server/shards/committer.py",
                "self.queue.fail(group)",
                'self.queue.complete(group, bytes(int.from_bytes(payload[:2], "little")))',
            ),
        ),
        (KILL, "--cycles", "60", "--fault", "kill,sync", "--victim", "store"),
    ),
    "the store survives a failed sync": Slip(
        (("store/sequencer.py", "            _die(error)\n", "            log.error('%s', error)\n"),),
        (KILL, "--cycles", "40", "--fault", "sync,disk", "--victim", "store"),
    ),
    "the store ignores the epoch": Slip(
        (("paychan/_fast/group.pyx", "if entry.epoch != <uint64_t> self._epochs[entry.shard] or ", "if "),),
        (FENCING, "--count", "100"),
    ),
    "the worker keeps the channels of lost shards, and the store compares nothing": Slip(
        (
            ("paychan/_fast/channel.pyx", "is_changed[shard] = new_epochs[shard] != self._epochs[shard]", "is_changed[shard] = 0"),
            ("paychan/_fast/group.pyx", "entry.expected_change_value != known.change_value:", "False:"),
            ("paychan/_fast/group.pyx", "and new.change_value <= known.change_value\n", "\n"),
        ),
        (KILL, "--cycles", "60", "--fault", "kill,stop,socket", "--victim", "worker"),
    ),
    "what the owner took and did not answer is sent again": Slip(
        (("paychan/_fast/forward.pyx", "request.tell(self._gone)", "self._refused(request, request.outpoint)"),),
        (KILL, "--cycles", "200", "--fault", "kill", "--victim", "worker"),
    ),
    "the worker answers before the store does, and goods are sold for it": Slip(
        _ACKNOWLEDGED_EARLY, (SALES, "--kills", "100", "--victim", "store,worker")
    ),
    "a till serves while it does not know that the charge is made": Slip(
        (
            (
                "paychan/sell/rules.py",
                "        told = yield from self._patiently(sale, is_owed=True, heard=heard)\n",
                "        told = yield from self._patiently(sale, is_owed=True, heard=heard)\n"
                "        if told is None or told.is_unknown:\n"
                '            known = {"received": 1 << 20, "channel_value_left": 1 << 20, "spent": 0, "repeated": False}\n'
                '            told = Told(200, {**known, "purchase": {"number": 1, "until": 0}})\n',
            ),
        ),
        (SALES, "--kills", "100", "--victim", "store,server"),
    ),
    "what failed is not given back": Slip(
        (
            (
                "paychan/sell/rules.py",
                "        if not sale.is_repeated:\n            told = yield from self._patiently(self._release(sale)",
                "        if False:\n            told = yield from self._patiently(self._release(sale)",
            ),
        ),
        (SALES, "--kills", "80", "--victim", "buyer,gateway"),
    ),
    "what was served before is given back when it fails at its second run": Slip(
        (
            (
                "paychan/sell/rules.py",
                "        if not sale.is_repeated:\n            told = yield from self._patiently(self._release(sale)",
                "        if True:\n            told = yield from self._patiently(self._release(sale)",
            ),
        ),
        (SALES, "--kills", "200", "--victim", "shop,gateway"),
    ),
    "an answer is kept for whatever is asked with its payment": Slip(
        (("paychan/sell/rules.py", "    made.update(request.fingerprint)\n", ""),),
        (SALES, "--kills", "50", "--victim", "buyer,shop"),
    ),
    "a till serves what it once asked for, whoever has served it since": Slip(
        (
            (
                "paychan/sell/owed.py",
                "self._until.get((key, attempt_of(number)), -1.0)",
                "max((until for (known, _), until in self._until.items() if known == key), default=-1.0)",
            ),
        ),
        (SALES, "--kills", "600", "--victim", "server,store"),
    ),
    "a POST is run again": Slip(
        (("paychan/sell/rules.py", "        if not repeats or is_over:\n", "        if is_over:\n"),),
        (SALES, "--kills", "100", "--victim", "shop,gateway"),
    ),
    "a payer signs on while a payment is unknown": Slip(
        (
            ("paychan/pay/turn.py", "        if self.is_pending and not self._is_refused:\n", "        if False:\n"),
            (
                "paychan/pay/turn.py",
                "return self.acknowledged_value + opening + missing",
                "return self.signed_value + opening + missing",
            ),
        ),
        (SALES, "--kills", "50", "--victim", "buyer,shop,server"),
    ),
    "a payer takes a payment for taken whose request was not answered": Slip(
        (
            (
                "paychan/pay/payer.py",
                "            return\n        self._hold(asked, challenge, cost)",
                "            yield Do(partial(turn.taken, turn.signed_value, -1, False))\n"
                "            return\n        self._hold(asked, challenge, cost)",
            ),
        ),
        (SALES, "--kills", "50", "--victim", "buyer,shop,server"),
    ),
}


def copy_tree(place: Path) -> None:
    """Copy what runs, with what is compiled."""
    ignore = shutil.ignore_patterns("__pycache__", ".pytest_cache")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, place / part, ignore=ignore)
        else:
            shutil.copy2(ROOT / part, place / part)


def compile_modules(place: Path, modules: list[str]) -> None:
    """Compile some modules of paychan/_fast anew."""
    script = place / "setup_broken.py"
    text = (place / "setup.py").read_text()
    listed = text.index("for name in [")
    end = text.index("\n", listed)
    (place / "README.md").touch()
    names = [f"paychan._fast.{module}" for module in modules]
    script.write_text(f"{text[:listed]}for name in {names}{text[end:]}")
    subprocess.run([sys.executable, script.name, "-q", "build_ext", "--inplace"], cwd=place, check=True, stdout=subprocess.DEVNULL)


def is_found(slip: Slip) -> tuple[bool, str]:
    """Return whether a slip is found, and the line that says so."""
    with tempfile.TemporaryDirectory(prefix="paychan-broken-") as directory:
        place = Path(directory)
        copy_tree(place)
        for name, right, wrong in slip.patches:
            text = (place / name).read_text()
            assert text.count(right) == 1, (name, right)
            (place / name).write_text(text.replace(right, wrong))
        modules = sorted({Path(name).stem for name, _, _ in slip.patches if name.endswith(".pyx")})
        if modules:
            compile_modules(place, modules)
        done = subprocess.run(
            [sys.executable, "-m", *slip.command],
            cwd=place,
            env={**os.environ, "TMPDIR": directory},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    lines = [line.strip() for line in done.stdout.splitlines()]
    said = [line for line in lines if any(word in line for word in SAID)]
    said += [line for line in lines if line.startswith("stale ") and "accepted 0" not in line]
    return done.returncode == 1 and bool(said), (said or lines or [done.stderr[-500:]])[-1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="those whose name has this word")
    chosen = [name for name in SLIPS if parser.parse_args().only in name]
    missed = 0
    for name in chosen:
        found, line = is_found(SLIPS[name])
        missed += not found
        print(f"{'found ' if found else 'MISSED'} {name}: {line}", flush=True)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
