"""Aim: what deploy/ has works: the proxies end TLS and log no payment, and our processes live behind the units' filters.

Method: the real nginx and Caddy with the shipped files, changed in places, ports and certificate; a payment through TLS by the real
client, to a server that runs and to one that is away; then every byte that any of them has written is searched for the payment.
"""

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from paychan.client import TEST, Channel
from tests.caged import numbers
from tests.ports import free_port
from tests.system import ROOT, make_config, running, wait_until

DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
EXPOSURE_MAX = {"paychan-signer": 1.0, "paychan-store": 1.0}
EXPOSURE_MAX |= dict.fromkeys(("paychan", "paychan-server", "paychan-metrics", "paychan-operator"), 2.0)
"""As `systemd-analyze security` counts; docs/INSTALL.md names the figures."""


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with running(tmp_path_factory.mktemp("deploy")) as made:
        yield made


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """Return a directory with fullchain.pem and privkey.pem for localhost."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl")
    place = tmp_path_factory.mktemp("certificate")
    made = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost", "-days", "2")
    names = ("-addext", "subjectAltName=DNS:localhost", "-keyout", str(place / "privkey.pem"), "-out", str(place / "fullchain.pem"))
    subprocess.run(["openssl", "req", "-x509", *made, *names], check=True, capture_output=True)
    return place


def put(text: str, **changes: str) -> str:
    """Replace what an operator replaces; each must be there."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def nginx(place: Path, port: int, upstream: int, certificate: Path) -> list[str]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("no nginx")
    site = put(
        (DEPLOY / "nginx" / "paychan.conf").read_text(),
        **{
            "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
            "    listen [::]:443 ssl;\n": "",
            "pay.example.com": "localhost",
            "/etc/ssl/paychan": str(certificate),
            "127.0.0.1:8000": f"127.0.0.1:{upstream}",
            "/var/log/nginx": str(place),
        },
    )
    user = "user root;\n" if os.geteuid() == 0 else ""
    temporary = "".join(f"{kind}_temp_path {place}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    main = f"{user}daemon off;\npid {place}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{site}}}\n"
    (place / "nginx.conf").write_text(main)
    return [program, "-e", str(place / "start.log"), "-c", str(place / "nginx.conf")]


def caddy(place: Path, port: int, upstream: int, certificate: Path) -> list[str]:
    program = shutil.which("caddy")
    if program is None:
        pytest.skip("no caddy")
    site = put(
        (DEPLOY / "caddy" / "Caddyfile").read_text(),
        **{
            "\npay.example.com {": f"\nhttps://localhost:{port} {{\n\ttls {certificate}/fullchain.pem {certificate}/privkey.pem",
            "127.0.0.1:8000": f"127.0.0.1:{upstream}",
            "/var/log/caddy": str(place),
        },
    ).replace("{\n\tlog default", "{\n\tadmin off\n\tauto_https disable_redirects\n\tlog default", 1)
    (place / "Caddyfile").write_text(site)
    return [program, "run", "--config", str(place / "Caddyfile"), "--adapter", "caddyfile"]


def written(place: Path) -> bytes:
    return b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file() and path.suffix != ".sock")


@pytest.mark.parametrize("proxy", [nginx, caddy], ids=lambda proxy: proxy.__name__)
def test_a_payment_goes_through_the_proxy_and_stands_in_no_log(system, certificate, tmp_path, monkeypatch, proxy):
    place, port, upstream = tmp_path / "proxy", free_port(), free_port()
    place.mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "fullchain.pem"))
    monkeypatch.setenv("XDG_DATA_HOME", str(place))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place))
    away, first = proxy(place, port, upstream, certificate), proxy(place, port, system.port, certificate)
    with (place / "streams.log").open("ab") as log:
        process = subprocess.Popen(first, stdout=log, stderr=log)
        try:
            url = f"https://localhost:{port}"
            wait_until(lambda: status_of(f"{url}/readyz", certificate) == 200, 20, "the proxy")
            payments = pay_through(url, tmp_path)
        finally:
            stop(process)
        assert away == first
        proxy(place, port, upstream, certificate)  # where nobody listens
        process = subprocess.Popen(away, stdout=log, stderr=log)
        try:
            wait_until(lambda: listens(port), 20, "the proxy")
            query = f"payment={payments[-1]}"  # as its payer repeats it
            assert status_of(f"{url}/v1/channels/{'11' * 32}/0?{query}", certificate, "PUT") == 502
        finally:
            stop(process)
    assert all(len(payment) > 80 for payment in payments), payments
    found = written(place)
    assert b"/v1/channels/" in found  # it did log
    assert [payment for payment in payments if payment[:60].encode() in found] == []
    assert b"payment=" not in found


def pay_through(url: str, place: Path) -> list[str]:
    """Open a channel and pay; return the payments."""
    with Channel.create(place / "shop.json", url, place / "shop.key", TEST, int(time.time()) + 7 * 86400) as channel:
        channel.fund_debug()
        channel.open()
        opened = channel.record.acknowledged.encode()
        channel.pay(5)
        return [opened, channel.record.acknowledged.encode()]


def status_of(url: str, certificate: Path, method: str = "GET") -> int:
    """Return an answer's status, 0 if there is none."""
    context = ssl.create_default_context(cafile=certificate / "fullchain.pem")
    try:
        with urlopen(Request(url, method=method), timeout=20, context=context) as answer:
            return answer.status
    except HTTPError as error:
        return error.code
    except OSError:
        return 0


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def stop(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(60)


# --- systemd ---


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_takes_the_units_and_finds_little_exposed(unit, tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze")
    for each in UNITS:
        text = re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", each.read_text())
        (tmp_path / each.name).write_text(text)
    said = subprocess.run(["systemd-analyze", "verify", "--man=no", str(tmp_path / unit.name)], capture_output=True, text=True)
    about = [line for line in (said.stdout + said.stderr).splitlines() if unit.name in line]
    assert about == [] and said.returncode == 0, said.stdout + said.stderr
    told = subprocess.run(
        ["systemd-analyze", "--no-pager", "security", "--offline=true", str(unit)], capture_output=True, text=True
    )
    match = re.search(r"Overall exposure level for \S+: ([\d.]+)", told.stdout)
    if match is None:
        pytest.skip("this systemd-analyze judges no files")
    assert float(match[1]) <= EXPOSURE_MAX[unit.stem]


def test_the_processes_live_behind_their_units_filter(tmp_path):
    if not shutil.which("systemd-analyze") or not numbers():
        pytest.skip("no systemd-analyze, or no headers of the kernel")
    metrics, operator = free_port(), free_port()
    sections = f'[metrics]\nlisten = "127.0.0.1:{metrics}"\n\n[operator]\nlisten = "127.0.0.1:{operator}"\n\n[processes]'
    make_config(tmp_path / "config", {"server.toml": {"[processes]": sections}})
    port = free_port()
    env = {**os.environ, "PORT": str(port), "PAYCHAN_STATE_DIR": str(tmp_path / "state")}
    unit = DEPLOY / "systemd" / "paychan.service"
    command = [sys.executable, "-m", "tests.caged", str(unit), sys.executable, "-m", "paychan", "run", str(tmp_path / "config")]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
        try:
            wait_until(lambda: b"ready http" in (tmp_path / "log").read_bytes() or process.poll() is not None, 30, "the system")
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert len(pay_through(f"http://127.0.0.1:{port}", tmp_path)) == 2
            wait_until(lambda: "paychan_payments_total" in text_at(f"http://127.0.0.1:{metrics}/metrics"), 30, "the metrics")
            described = f"http://127.0.0.1:{operator}/operator/v1/openapi.json"
            wait_until(lambda: "openapi" in text_at(described), 30, "the operator's API")
        finally:
            stop(process)
    assert process.returncode == 0


def text_at(url: str) -> str:
    """Return what is answered, nothing if there is no answer."""
    try:
        with urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""


# --- users of their own ---

ACCOUNTS = {"server": "daemon", "store": "bin", "signer": "nobody"}
GROUP = "54330"
MODULES = {"signer": "signer", "store": "store", "server": "paychan.server"}


def as_user(name: str, *command: str) -> list[str]:
    return ["setpriv", "--reuid", name, "--regid", GROUP, "--clear-groups", *command]


@pytest.fixture
def apart():
    """Return a directory that all users may enter, with a configuration laid out as docs/INSTALL.md says."""
    probe = as_user("nobody", sys.executable, "-c", "import paychan.server.serving, store.serving, signer.serving")
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can play three users")
    if subprocess.run(probe, cwd=ROOT, capture_output=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}).returncode:
        pytest.skip("this interpreter or checkout is not readable by other users")
    base = Path(tempfile.mkdtemp(prefix="paychan-users-"))
    base.chmod(0o755)
    try:
        config = make_config(base / "config", {"server.toml": {"base_port = ": "base_port = 0"}})
        users = "\n[users]\n" + "".join(f'{process} = "{name}"\n' for process, name in ACCOUNTS.items())
        for process, name in ACCOUNTS.items():
            for kind, mode in (("lib", 0o700), ("run", 0o750)):
                place = base / kind / process
                place.mkdir(parents=True)
                place.chmod(mode)
                shutil.chown(place, name, int(GROUP))
            text = (config / f"{process}.toml").read_text().replace('"state/debug"', f'"{base}/lib/{process}"')
            for other in ("store", "signer"):
                text = text.replace(f'"unix:run/{other}.sock"', f'"unix:{base}/run/{other}/{other}.sock"')
            text = text.replace('"signer.pub"', f'"{base}/run/signer/signer.pub"')
            if process == "signer":
                text = text.replace("[signer]", f'[signer]\npublic_key_file = "{base}/run/signer/signer.pub"')
            (config / f"{process}.toml").write_text(text + users)
        yield base
    finally:
        shutil.rmtree(base)


def test_three_users_make_one_system_and_a_fourth_is_let_in_nowhere(apart, tmp_path):
    port = free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PAYCHAN_")}
    env = {**clean, "PORT": str(port), "PYTHONDONTWRITEBYTECODE": "1"}
    processes = []
    with (tmp_path / "log").open("wb") as log:
        try:
            for process, module in MODULES.items():
                command = as_user(ACCOUNTS[process], sys.executable, "-m", module, str(apart / "config" / f"{process}.toml"))
                processes.append(subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log))
            wait_until(lambda: is_ready(port), 30, f"three users' system: {(tmp_path / 'log').read_text()}")
            assert len(pay_through(f"http://127.0.0.1:{port}", tmp_path)) == 2
            ask = [sys.executable, "-m", "paychan", "doctor", str(apart / "config")]
            told = subprocess.run(ask, cwd=ROOT, env=env, capture_output=True, text=True).stdout
            assert "bad " not in told and "ok         running, server: it is ready" in told, told
            assert not (apart / "lib" / "signer" / "signer.key").stat().st_mode & 0o077
            counts = apart / "run" / "store" / "store-counts"
            assert (counts.stat().st_mode & 0o777, counts.stat().st_gid) == (0o640, int(GROUP))
            shown = [sys.executable, "-m", "paychan", "metrics", "--once", str(apart / "config")]
            told = subprocess.run(as_user(ACCOUNTS["server"], *shown), cwd=ROOT, env=env, capture_output=True, text=True).stdout
            assert re.search(r"(?m)^paychan_store_groups_total [1-9]", told), told
            assert 'paychan_processes{role="store"} 1' in told, told
            strangers = ["setpriv", "--reuid", "games", "--regid", "games", "--clear-groups", "cat", str(counts)]
            assert subprocess.run(strangers, capture_output=True).returncode == 1
            look = as_user("games", sys.executable, "-m", "paychan", "channels", str(apart / "config"))
            assert subprocess.run(look, cwd=ROOT, env=env, capture_output=True).returncode == 1
        finally:
            for process in reversed(processes):
                stop(process)


def is_ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def test_users_and_directories_are_made(tmp_path):
    if not shutil.which("systemd-sysusers") or not shutil.which("systemd-tmpfiles") or os.geteuid() != 0:
        pytest.skip("no systemd-sysusers and systemd-tmpfiles, or not root")
    (tmp_path / "etc").mkdir()
    for program, file in (("systemd-sysusers", "sysusers.conf"), ("systemd-tmpfiles", "tmpfiles.conf")):
        create = ("--create",) if program == "systemd-tmpfiles" else ()
        subprocess.run([program, f"--root={tmp_path}", *create, str(DEPLOY / "systemd" / file)], check=True, capture_output=True)
    users = {line.split(":")[0]: int(line.split(":")[2]) for line in (tmp_path / "etc" / "passwd").read_text().splitlines()}
    assert {"paychan", "paychan-store", "paychan-signer"} <= users.keys()
    for name in ("paychan", "paychan-store", "paychan-signer"):
        found = (tmp_path / "var" / "lib" / name).stat()
        assert (found.st_uid, found.st_mode & 0o777) == (users[name], 0o700)
    backups = (tmp_path / "var" / "backups" / "paychan").stat()
    assert (backups.st_uid, backups.st_mode & 0o777) == (users["paychan-store"], 0o700)
