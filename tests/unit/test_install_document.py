"""Aim: docs/INSTALL.md can be followed, and what deploy/ ships is what it says. Method: every file, command and line that the
document names is looked for; the units, the image and the composition by their facts.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from paychan.settings.directory import check_directory

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
TEXT = (ROOT / "docs" / "INSTALL.md").read_text()
UNITS = {path.stem: path.read_text() for path in (DEPLOY / "systemd").glob("*.service")}


WATCHING = ("paychan-metrics", "paychan-operator")
"""Nothing waits for these, and no payment."""


def lines_of(unit: str) -> dict[str, str]:
    return dict(re.findall(r"(?m)^(\w+)=(.*)$", UNITS[unit]))


def test_every_file_that_is_named_is_there():
    named = set(re.findall(r"deploy/[\w./-]*\w", TEXT))
    assert len(named) > 8 and [name for name in named if not (ROOT / name).exists()] == []


def commands() -> set[tuple[str, ...]]:
    """Return our commands in the document's code, each with its subcommand."""
    found, pattern = set(), r"(?m)(?:/bin/|^ *)(paychan(?:-store|-signer)?) ((?:--)?[a-z][\w-]*(?: [a-z]+)?)"
    for program, rest in re.findall(pattern, "\n".join(code())):
        words = rest.split()
        found.add((program, *words[: 2 if words[0] == "config" else 1]))
    return found


def code() -> list[str]:
    return [line for line in TEXT.splitlines() if line.startswith("    ")] + re.findall(r"`([^`\n]+)`", TEXT)


def test_every_command_of_ours_exists():
    modules = {"paychan": "paychan", "paychan-store": "store", "paychan-signer": "signer"}
    asked = commands()
    assert {("paychan", "doctor"), ("paychan", "config", "import"), ("paychan-store", "backup")} <= asked
    for program, *words in asked:
        names = [word for word in words if not word.startswith("--")]
        command = [sys.executable, "-m", modules[program], *names, "--help"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and all(word in done.stdout for word in words if word.startswith("--")), (program, words)


def test_the_lines_for_three_users_make_a_configuration_that_lacks_only_an_operators_own(tmp_path, monkeypatch):
    monkeypatch.delenv("PAYCHAN_STATE_DIR", raising=False)
    table = re.search(r"\[users\]\n((?: +\w+ = .*\n)+)", TEXT)[1].replace(" ", "")
    for name in ("server", "store", "signer"):
        text = (ROOT / "config" / "live" / f"{name}.toml").read_text()
        for key, value in re.findall(r'`(\w+) = ("[^"]+")`', re.search(rf"(?m)^ *\| {name}\.toml \| (.*) \|$", TEXT)[1]):
            text, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
            if not count:
                text = text.replace("[signer]", f"[signer]\n{key} = {value}")
            assert f"{key} = {value}" in text
        users = table.replace('"paychan-store"', '"bin"').replace('"paychan-signer"', '"nobody"').replace('"paychan"', '"daemon"')
        (tmp_path / f"{name}.toml").write_text(f"{text}\n[users]\n{users}")
    keys = {line.split(": ")[1] for line in check_directory(tmp_path)}
    assert keys == {"bitcoind.cookie_file", "policy.funds_destination_address", "signer.key_file"}


@pytest.mark.parametrize("unit", UNITS)
def test_units_are_as_the_document_says(unit):
    lines = lines_of(unit)
    if unit not in WATCHING:
        assert lines["Type"] == "notify" and int(lines["WatchdogSec"]) >= 30 and lines["WatchdogSignal"] == "SIGKILL"
    assert lines["Restart"] == "on-failure" and lines["RestartPreventExitStatus"] == "2" and lines["LimitCORE"] == "0"
    assert lines["ProtectSystem"] == "strict" and lines["NoNewPrivileges"] == "yes" and lines["CapabilityBoundingSet"] == ""
    assert "PrivateUsers" not in lines  # processes know each other by their user ids
    assert ("ExecReload" in lines) is (unit in ("paychan", "paychan-server"))


def test_who_watches_is_the_servers_user_gives_way_to_it_and_lives_behind_the_filter_that_all_are_tried_behind():
    """tests/process/test_deploy.py has paychan.service's processes, these among them, live behind its filter."""

    def sandbox(unit):
        return UNITS[unit].partition("# What it may not do")[2]

    for unit in WATCHING:
        lines = lines_of(unit)
        assert (lines["User"], lines["Group"], lines["Nice"]) == ("paychan", "paychan", "5")
        assert sandbox(unit) == sandbox("paychan") and f"{unit}.service" in lines_of("paychan")["Conflicts"]
        assert f"ExecStart=/opt/paychan/bin/paychan {unit.removeprefix('paychan-')} /etc/paychan\n" in UNITS[unit]


def test_who_keeps_the_key_has_a_user_of_its_own_no_network_and_comes_first():
    signer, store, server = (lines_of(f"paychan-{name}") for name in ("signer", "store", "server"))
    assert len({unit["User"] for unit in (signer, store, server)}) == 3
    assert {unit["Group"] for unit in (signer, store, server)} == {"paychan"}
    assert signer["RestrictAddressFamilies"] == "AF_UNIX" and signer["PrivateNetwork"] == "yes"
    assert signer["LimitMEMLOCK"] == "infinity"
    assert "paychan-signer.service" in store["After"]
    assert {"paychan-signer.service", "paychan-store.service"} <= set(server["After"].split())
    assert int(server["LimitNOFILE"]) >= 4 * 4096


def test_the_image_has_a_pinned_base_a_plain_user_and_no_secret():
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    bases = re.findall(r"(?m)^FROM (\S+)", text)
    assert bases and all(re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", base) for base in bases)
    last = text.rpartition("\nFROM ")[2]
    assert re.search(r"(?m)^USER 10001", last) and "HEALTHCHECK" in last and 'VOLUME ["/var/lib/paychan"]' in last
    copied = {word for line in re.findall(r"(?m)^COPY (?!--from)(.*)$", text) for word in line.split()[:-1]}
    assert {"paychan", "store", "signer"} <= copied and all((ROOT / word).exists() for word in copied) and "." not in copied
    assert "--require-hashes" in text and not re.search(r"(?i)password|secret|\.key", text)
    assert {".git", "state", "**/*.key"} <= set((DEPLOY / "docker" / "Dockerfile.dockerignore").read_text().split())


def test_the_composition_exposes_little():
    services = yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text())["services"]
    assert services["node"]["image"].partition(":")[2] and "latest" not in services["node"]["image"]
    for name in ("key", "node", "paychan"):
        assert services[name]["cap_drop"] == ["ALL"] and services[name]["security_opt"] == ["no-new-privileges:true"]
    assert services["paychan"]["read_only"] and services["paychan"]["network_mode"] == "service:node"
    assert services["node"]["ports"] == ["127.0.0.1:8000:8000"]


def test_the_composition_makes_its_key_once_and_then_lacks_only_the_nodes_cookie(tmp_path, monkeypatch):
    services = yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text())["services"]
    command = [word.replace("/var/lib/paychan", str(tmp_path)) for word in services["key"]["entrypoint"]]
    assert services["key"]["volumes"] == ["state:/var/lib/paychan"] and "key" in services["paychan"]["depends_on"]
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    tmp_path.chmod(0o700)
    made = [subprocess.run(command, check=True) and (tmp_path / "signer.key").read_bytes() for _ in range(2)]
    assert made[0] == made[1]
    monkeypatch.setenv("PAYCHAN_STATE_DIR", str(tmp_path))
    keys = {line.split(": ")[1] for line in check_directory(DEPLOY / "docker" / "regtest")}
    assert keys == {"bitcoind.cookie_file"}
