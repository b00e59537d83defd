"""Aim: no command of ours ends in a traceback, whatever it is given and wherever it runs: any input, locale, user and working
directory, with standard streams that are closed, full, or a pipe whose reader has gone. Its exit status is the documented one.

Method: a table of commands, good and bad, each in some worlds of a table (worlds.py), a child forked from one interpreter; the odd
files are real ones. What only a new interpreter can show (streams that are closed when it starts, the C locale) is run as such.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.process.worlds import WORLDS
from tests.system import ROOT, System, running

UNPRINTED = 10
ODD_WORLDS_EACH = 4
IS_ROOT = os.geteuid() == 0
"""Who may read everything."""

OUTPOINT = "11" * 32 + "/0"
BAD_BYTES = os.fsdecode(b"sh\xff\xfep")
"""An argument that is no UTF-8."""


@dataclass(frozen=True)
class Command:
    """{PLACES} in `words` and `more` are filled in: see `Scene`. status: how it ends where nothing is odd. slow: it waits for
    something, and is run in the plain world only."""

    words: str
    status: int
    slow: bool = False
    more: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        return self.words.split()[0]

    def arguments(self, places: dict[str, str]) -> list[str]:
        return [*(word.format(**places) for word in self.words.split()[1:]), *(word.format(**places) for word in self.more)]


COMMANDS = [
    Command("paychan", 2),
    Command("paychan --help", 0),
    Command("paychan --version", 0),
    Command("paychan walk", 2),
    Command("paychan", 2, more=(BAD_BYTES,)),
    Command("paychan run --help", 0),
    Command("paychan run {odd}/none", 2),
    Command("paychan run {odd}/folders", 2),
    Command("paychan run {odd}/binary", 2),
    Command("paychan run {config}", 2, slow=True),  # it runs already
    Command("paychan config", 2),
    Command("paychan config check --help", 0),
    Command("paychan config check {config}", 0),
    Command("paychan config check {config} --json", 0),
    Command("paychan config check {odd}/bom", 0),
    Command("paychan config check {odd}/file", 2),
    Command("paychan config check {odd}/folders", 2),
    Command("paychan config check {odd}/binary", 2),
    Command("paychan config check {odd}/wide", 2),
    Command("paychan config check {odd}/locked", 0 if IS_ROOT else 2),
    Command("paychan config check /dev", 2),
    Command("paychan config check", 2, more=("{odd}/" + BAD_BYTES,)),
    Command("paychan config import {odd}/none", 1),
    Command("paychan config import {odd}/noise {new}", 1),
    Command("paychan doctor --help", 0),
    Command("paychan doctor {odd}/none", 2, slow=True),
    Command("paychan doctor {odd}/binary --json", 2, slow=True),
    Command("paychan channels {config}", 0),
    Command("paychan channels {config} --json", 0),
    Command("paychan channels {odd}/folders", 2),
    Command("paychan channels {stopped}", 1, slow=True),
    Command("paychan channel {config} {outpoint}", 0),
    Command("paychan channel {config} {outpoint} --json", 0),
    Command(f"paychan channel {{config}} {OUTPOINT}", 1),
    Command("paychan channel {config}", 1, more=(BAD_BYTES,)),
    Command(f"paychan settle {{config}} {OUTPOINT}", 1),
    Command(f"paychan settle {{stopped}} {OUTPOINT}", 1),
    Command("paychan keygen {new}.key", 0),
    Command("paychan keygen {odd}/file", 9),
    Command("paychan keygen {odd}/file/key --json", 9),
    Command("paychan fund {url} --network test --debug --expires-in 7 --state-dir {new}", 0),
    Command("paychan fund {url} --network test --debug --expires-in 7 --state-dir {new} --json", 0),
    Command("paychan fund {url} --network test --debug --expires-in 7 --state-dir {odd}/file", 9),
    Command("paychan fund {url} --network test --debug --expires-in nan --state-dir {new}", 2),
    Command("paychan fund http://127.0.0.1:{closed} --expires-in 7 --btc 1 --state-dir {new} --deadline 0.2", 4, slow=True),
    Command("paychan fund --expires-in 7 --amount 1000000 --state-dir {new}", 2, more=("http://" + BAD_BYTES,)),
    Command("paychan open new --state-dir {fresh}", 0),
    Command("paychan pay new 5 --state-dir {fresh}", 1),  # not open yet
    Command("paychan close new --state-dir {fresh} --json", 1),
    Command("paychan pay shop 0 --state-dir {payer}", 1),
    Command("paychan pay binary 5 --state-dir {payer}", 9),
    Command("paychan pay folder 5 --state-dir {payer}", 9),
    Command("paychan pay 5 --state-dir {payer}", 2, more=(BAD_BYTES,)),
    Command("paychan status shop --state-dir {payer}", 0),
    Command("paychan status nobody --state-dir {payer}", 9),
    Command("paychan status shop --state-dir {odd}/file", 9),
    Command("paychan refund shop --fee-rate 5 --state-dir {payer}", 0),
    Command("paychan close nobody --state-dir {payer} --settlement {odd}/folders", 2),
    Command("paychan list --state-dir {payer}", 0),
    Command("paychan list --state-dir {payer} --json", 0),
    Command("paychan list --state-dir {odd}/file", 9),
    Command("paychan list --state-dir {odd}/shut", 0 if IS_ROOT else 9),
    Command("paychan list --state-dir /proc/1/none", 0),
    Command("paychan list --state-dir", 0, more=("{new}" + BAD_BYTES,)),
    Command("paychan completion bash", 0),
    Command("paychan completion", 2),
    Command("paychan.server", 2),
    Command("paychan.server --help", 0),
    Command("paychan.server --version", 0),
    Command("paychan.server {odd}/none", 2),
    Command("paychan.server {odd}/folders/server.toml", 2),
    Command("paychan.server {odd}/binary/server.toml", 2),
    Command("paychan.server /dev/zero", 2),
    Command("paychan.server {config}/server.toml", 2, slow=True),  # the port is taken
    Command("store", 2),
    Command("store --help", 0),
    Command("store check --help", 0),
    Command("store audit --help", 0),
    Command("store backup --help", 0),
    Command("store restore --help", 0),
    Command("store check", 2),
    Command("store", 2, more=(BAD_BYTES,)),
    Command("store {odd}/folders/store.toml", 2),
    Command("store {odd}/binary/store.toml", 2),
    Command("store {config}/store.toml", 2),  # it runs already
    Command("store check {state}", 1),
    Command("store check {odd}/file", 1),
    Command("store audit {odd}", 1),
    Command("store backup {store} {new}.backup", 0),
    Command("store backup {state} {odd}/none/backup", 1),
    Command("store restore {odd}/noise {new}", 1),
    Command("store restore {odd}/folders {new}", 1),
    Command("store restore {backup} {new}", 0),
    Command("store restore {backup} {odd}/file", 1),
    Command("signer", 2),
    Command("signer --help", 0),
    Command("signer {odd}/none", 2),
    Command("signer {odd}/folders/signer.toml", 2),
    Command("signer {odd}/binary/signer.toml", 2),
    Command("signer {config}/signer.toml", 2),  # it runs already
    Command("signer --init {new}.key", 0),
    Command("signer --init {odd}/file", 2),
    Command("signer --init {odd}/none/key", 2),
    Command("signer --init", 2),
]


@dataclass
class Scene:
    """A running system, a payer's open channel, and a directory of odd files."""

    base: Path
    system: System
    outpoint: str

    def places(self, output: str) -> dict[str, str]:
        return {
            "odd": str(self.base / "odd"),
            "new": f"{output}.new",
            "config": str(self.system.config_dir),
            "stopped": str(self.base / "stopped"),
            "state": str(self.system.state_dir),
            "store": self.system.store_place,
            "payer": f"{output}.payer",
            "fresh": f"{output}.fresh",
            "backup": str(self.base / "backup"),
            "url": f"http://127.0.0.1:{self.system.port}",
            "outpoint": self.outpoint,
            "closed": str(free_port()),
        }

    @property
    def env(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if name != "PORT" and not name.startswith("PAYCHAN_")}
        return clean | {"PORT": str(self.system.port), "PAYCHAN_STATE_DIR": str(self.system.state_dir)}


def make_odd(odd: Path, config: Path) -> None:
    odd.mkdir()
    (odd / "file").write_text("text\n")
    (odd / "shut").mkdir(mode=0)
    (odd / "noise").write_bytes(os.urandom(3000))
    for name in ("server.toml", "store.toml", "signer.toml"):
        text = (config / name).read_text()
        for kind, content in (
            ("binary", os.urandom(3000)),
            ("bom", text.replace("\n", "\r\n").encode("utf-8-sig")),
            ("wide", text.encode("utf-16")),
            ("locked", text.encode()),
        ):
            (odd / kind).mkdir(exist_ok=True)
            (odd / kind / name).write_bytes(content)
        (odd / "locked" / name).chmod(0)
        (odd / "folders" / name).mkdir(parents=True)


def run_well(scene_env: dict[str, str], *words: str) -> str:
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, env=scene_env, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    base = tmp_path_factory.mktemp("worlds")
    with running(base) as system:
        make_odd(base / "odd", system.config_dir)
        shutil.copytree(system.config_dir, base / "stopped")
        for name in ("server.toml", "store.toml", "signer.toml"):
            file = base / "stopped" / name
            file.write_text(file.read_text().replace("unix:run/", "unix:stopped/"))
        payer = base / "payer"
        scene = Scene(base, system, "")
        where = ("--state-dir", str(payer), "--json")
        fund = ("fund", f"http://127.0.0.1:{system.port}", "--network", "test", "--debug", "--expires-in", "9")
        run_well(scene.env, "paychan", *fund, "--name", "shop", *where)
        run_well(scene.env, "paychan", *fund, "--name", "new", "--state-dir", str(base / "fresh"))
        run_well(scene.env, "paychan", "open", "shop", *where)
        scene.outpoint = json.loads(run_well(scene.env, "paychan", "status", "shop", *where))["funding_outpoint"]
        run_well(scene.env, "store", "backup", system.store_place, str(base / "backup"))
        (payer / "binary.json").write_bytes(os.urandom(500))
        (payer / "folder.json").mkdir()
        yield scene


def worlds_of(command: Command) -> list[str]:
    """Return the worlds that a command is run in: a few of the odd ones, others each time; all with PAYCHAN_ODD_WORDS=all."""
    plain, *odd = WORLDS
    if command.slow:
        return [plain]
    return [plain, *(odd if os.environ.get("PAYCHAN_ODD_WORDS") == "all" else random.sample(odd, ODD_WORLDS_EACH))]


def rows(scene: Scene) -> dict[tuple[int, str], dict]:
    """Return the rows for worlds.py by (number of the command, world)."""
    made = {}
    for number, command in enumerate(COMMANDS):
        for world in worlds_of(command):
            output = str(scene.base / f"{number}-{list(WORLDS).index(world)}")
            for kind in ("payer", "fresh"):
                if f"{{{kind}}}" in command.words:
                    shutil.copytree(scene.base / kind, f"{output}.{kind}")
            arguments = [os.fsencode(word).hex() for word in command.arguments(scene.places(output))]
            made[number, world] = {"module": command.module, "arguments": arguments, "world": world, "output": output}
    return made


@pytest.fixture(scope="module")
def outcomes(scene):
    """By (number of the command, world): exit status, standard output and error."""
    every = rows(scene)
    modules = ["paychan", "paychan.server", "store", "signer"]
    parts = [
        ([module], {key: row for key, row in every.items() if row["module"] == module and not COMMANDS[key[0]].slow})
        for module in modules
    ]
    parts.append((modules, {key: row for key, row in every.items() if COMMANDS[key[0]].slow}))

    def run(part: tuple[list[str], dict[tuple[int, str], dict]]) -> dict[tuple[int, str], int]:
        modules, mine = part
        lines = "".join(json.dumps(row) + "\n" for row in mine.values())
        command = [sys.executable, "-m", "tests.process.worlds", *modules]
        done = subprocess.run(command, input=lines, cwd=ROOT, env=scene.env, capture_output=True, text=True, timeout=300)
        assert len(done.stdout.splitlines()) == len(mine), done.stderr
        return dict(zip(mine, map(int, done.stdout.splitlines()), strict=True))

    with ThreadPoolExecutor(len(parts)) as pool:
        statuses = {key: status for found in pool.map(run, parts) for key, status in found.items()}
    found = {}
    for key, row in every.items():
        texts = [Path(f"{row['output']}.{number}").read_text(errors="replace") for number in (1, 2)]
        found[key] = (statuses[key], *texts)
    return found


def expected(command: Command, world: str, shows: bool) -> set[int]:
    """Return how a command may end: a result that could not be shown is 10, and who may read nothing is refused in many ways."""
    if command.words.endswith(("--help", "--version")) and world in ("stdout closed", "all closed"):
        return {0}  # argparse shows them on standard error then
    if world == "no home":
        return set(range(10))
    if world == "nowhere":
        return {command.status, 2, 9}
    if command.status == 0 and shows and world in ("stdout full", "stdout closed", "all closed"):
        return {UNPRINTED}
    return {command.status}


@pytest.mark.parametrize("world", WORLDS)
def test_no_command_ends_in_a_traceback_anywhere(outcomes, world):
    wrong = []
    for (number, place), (status, stdout, stderr) in outcomes.items():
        command = COMMANDS[number]
        if place == world:
            is_bug = any(text in stdout + stderr for text in ("Traceback", "internal error", "Exception ignored", "Logging error"))
            shows = bool(outcomes[number, "plain"][1])
            if is_bug or status not in expected(command, world, shows):
                wrong.append((command.words, status, stderr[-300:]))
    assert not wrong, "\n".join(map(str, wrong))


def closed(*numbers: int):
    return lambda: [os.close(number) for number in numbers]


BORN = {
    "C locale": ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, None),
    "latin": ({"PYTHONIOENCODING": "iso-8859-1"}, None),
    "all closed": ({}, closed(0, 1, 2)),
    "stdout closed": ({}, closed(1)),
}
"""Worlds that an interpreter is born into: variables, and what is called before it starts."""


@pytest.mark.parametrize("born", BORN)
def test_nor_does_a_new_interpreter(scene, born, tmp_path):
    """A closed descriptor is the next file's that is opened: nothing that is printed may get into one."""
    variables, before = BORN[born]
    shutil.copytree(scene.base / "fresh", tmp_path / "fresh")
    fund = f"paychan fund http://127.0.0.1:{scene.system.port} --network test --debug --expires-in 7 --name {BAD_BYTES}"
    for words, status in (
        (f"{fund} --state-dir {tmp_path}", 2),
        (f"paychan open new --state-dir {tmp_path}/fresh", 0),
        (f"paychan config check {scene.system.config_dir}", 0),
        (f"store check {scene.base}", 1),
        (f"signer --init {tmp_path}/{born.replace(' ', '-')}.key", 0),
        ("paychan.server --help", 0),
    ):
        done = subprocess.run(
            [sys.executable, "-m", *words.split()],
            cwd=ROOT,
            env=scene.env | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            preexec_fn=before,
            timeout=60,
        )
        said = (done.stdout + done.stderr).decode(errors="replace")
        assert not any(text in said for text in ("Traceback", "internal error", "Exception ignored")), said
        unprinted = before is not None and status == 0 and "--help" not in words
        assert done.returncode == (UNPRINTED if unprinted else status), (words, said)
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or b"paychan" not in file.read_bytes().replace(bytes(tmp_path), b""), file


@pytest.mark.parametrize("to", ["/dev/full", "reader gone"])
def test_an_interpreter_that_cannot_print_ends_with_the_documented_status(scene, to):
    reader, gone = os.pipe()
    os.close(reader)
    with open("/dev/full", "wb") as full, open(gone, "wb") as pipe:
        for words in ("paychan --help", f"paychan channels {scene.system.config_dir} --json"):
            command = [sys.executable, "-m", *words.split()]
            out = full if to == "/dev/full" else pipe
            done = subprocess.run(command, cwd=ROOT, env=scene.env, stdout=out, stderr=subprocess.PIPE, text=True, timeout=60)
            if to == "/dev/full":
                said = "paychan: standard output cannot be written: No space left on device\n"
                assert (done.returncode, done.stderr) == (UNPRINTED, said)
            else:
                assert (done.returncode, done.stderr) == (0, "")


def test_an_operator_reads_times_in_utc_and_no_news_of_connections(scene):
    """Cron sends a mail for each word on standard error."""

    def look(*words: str) -> str:
        command = [sys.executable, "-m", "paychan", *words]
        done = subprocess.run(command, cwd=ROOT, env=scene.env, capture_output=True, text=True, timeout=60, check=True)
        assert done.stderr == ""
        return done.stdout

    (row,) = [
        row
        for row in json.loads(look("channels", str(scene.system.config_dir), "--json"))["channels"]
        if row["outpoint"] == scene.outpoint
    ]
    expiry = datetime.fromtimestamp(row["exp_time"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    *lines, last = look("channels", str(scene.system.config_dir)).splitlines()
    assert f"{scene.outpoint} open received {row['received']} of {row['funding_value']} expires {expiry}" in lines
    assert last.startswith(f"{len(lines)} channel{'' if len(lines) == 1 else 's'}, ")
    shown = look("channel", str(scene.system.config_dir), scene.outpoint)
    assert f"exp_time: {expiry}\n" in shown and re.search(r"(?m)^opened_at: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$", shown)


def test_a_store_that_turns_an_operator_away_is_told_of_in_one_line(scene, tmp_path):
    shutil.copytree(scene.system.config_dir, tmp_path / "config")
    file = tmp_path / "config" / "store.toml"
    file.write_text(file.read_text().replace("server_pubkey_file = ", f'server_pubkey = "02{"11" * 32}" # '))
    command = [sys.executable, "-m", "paychan", "channels", str(tmp_path / "config")]
    done = subprocess.run(command, cwd=ROOT, env=scene.env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"paychan: the store at unix:\S+ does not answer \(RemoteRefusal: .*\)\n", done.stderr)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_standard_error_does_not_change_what_a_wrong_command_line_ends_with(unbuffered):
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "paychan", "nonsense"]
        env = os.environ | {"PYTHONUNBUFFERED": unbuffered}
        assert subprocess.run(command, env=env, cwd=ROOT, stderr=full, timeout=60).returncode == 2
