"""Aim: a `[cluster]` whose certificate no peer would take is refused by file and key; one that has ended is told of, and starts.
Method: a table of what can be wrong, on files that openssl made."""

import ssl
import time

import pytest

from paychan.settings.cluster import SOON_SECONDS, trouble_with_end
from paychan.settings.directory import check_directory
from paychan.settings.load import load_server_config
from tests.certificates import ALPHA, BETA, EXPIRED, USUAL, files_of, make, run, sign
from tests.system import make_config
from tests.unit.settings.test_config import changed, complaint

KEYS = {"machine": "alpha", "peer_host": ALPHA, "peer_port": 8300, "ca": "ca.crt", "certificate": "peer.crt", "key": "peer.key"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("cluster"))


def table(place, **changes):
    """Return a server.toml with the cluster's files in `place`; None leaves a key out."""
    keys = {**KEYS, **changes}
    found = {f"cluster.{key}": value for key, value in keys.items() if value is not None}
    return changed("debug", "server", {"state_dir": str(place), **found})


def load(tmp_path, text):
    path = tmp_path / "server.toml"
    path.write_text(text)
    return load_server_config(path, {})


def test_without_the_section_there_is_no_cluster(tmp_path):
    assert load(tmp_path, changed("debug", "server", {})).cluster is None


def test_a_good_section_is_read(tmp_path, made):
    cluster = load(tmp_path, table(made / ALPHA)).cluster
    assert (cluster.machine, cluster.peer_host, cluster.peer_port, cluster.listen_host) == ("alpha", ALPHA, 8300, ALPHA)
    assert cluster.files == files_of(made, ALPHA)
    shown = run("x509", "-in", cluster.files.certificate, "-noout", "-enddate").removeprefix("notAfter=").strip()
    assert cluster.certificate_ends == ssl.cert_time_to_seconds(shown)


def test_a_name_needs_an_address_to_listen_on(tmp_path):
    made = make(tmp_path / "named", "alpha.example")
    text = table(made / "alpha.example", peer_host="alpha.example")
    assert complaint(tmp_path, "server", text) == (
        "cluster.listen_host: is missing: peer_host is a name, and an address of this machine is listened on"
    )
    cluster = load(tmp_path, table(made / "alpha.example", peer_host="alpha.example", listen_host="::")).cluster
    assert (cluster.peer_host, cluster.listen_host) == ("alpha.example", "::")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"machine": None}, "cluster.machine: is missing"),
        ({"machine": "a b"}, "cluster.machine: must be up to 64 letters"),
        ({"peer_host": None}, "cluster.peer_host: is missing"),
        ({"peer_host": "http://x"}, "cluster.peer_host: must be a host alone"),
        ({"peer_host": "127.0.0.9"}, "cluster.certificate: "),  # it is of another host
        ({"peer_port": None}, "cluster.peer_port: is missing"),
        ({"peer_port": 0}, "cluster.peer_port: must be from 1 to 65535"),
        ({"listen_host": "*"}, "cluster.listen_host: is no address"),
        ({"ca": None}, "cluster.ca: is missing"),
        ({"ca": "../ca.crt"}, "cluster.ca: must not lead upwards"),
        ({"ca": "none.crt"}, "cluster.ca: "),
        ({"ca": "peer.key"}, "cluster.ca: "),
        ({"certificate": "none.crt"}, "cluster.certificate: "),
        ({"certificate": "peer.key"}, "cluster.certificate: "),
        ({"key": "none.key"}, "cluster.key: "),
        ({"key": "peer.crt"}, "cluster.key: "),
        ({"port": 1}, "cluster.port: is unknown"),
    ],
)
def test_a_bad_section_is_refused_by_name(tmp_path, made, changes, says):
    line = complaint(tmp_path, "server", table(made / ALPHA, **changes))
    assert line.startswith(says), line
    if says.endswith(": "):
        assert "holds no" in line or "cannot be read: No such file" in line or "mismatch" in line, line


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o620, 0o666])
def test_a_key_that_is_open_to_others_is_refused(tmp_path, mode):
    made = make(tmp_path / "open")
    files_of(made, ALPHA).key.chmod(mode)
    assert "is open to others" in complaint(tmp_path, "server", table(made / ALPHA))
    files_of(made, ALPHA).key.chmod(0o640)
    assert load(tmp_path, table(made / ALPHA)).cluster is not None


def test_a_key_of_another_certificate_is_refused(tmp_path):
    made = make(tmp_path / "other")
    files_of(made, BETA).key.rename(files_of(made, ALPHA).key)
    assert complaint(tmp_path, "server", table(made / ALPHA)).startswith("cluster.key: ")


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(tmp_path):
    made = make(tmp_path / "locked")
    key = files_of(made, ALPHA).key
    run("ec", "-in", key, "-aes128", "-passout", "pass:secret", "-out", made / "locked.key")
    (made / "locked.key").rename(key)
    key.chmod(0o600)
    assert "or one with a password" in complaint(tmp_path, "server", table(made / ALPHA))


def test_a_certificate_of_another_authority_is_refused(tmp_path, made):
    other = make(tmp_path / "foreign")
    files_of(other, ALPHA).ca.write_bytes((made / "ca.crt").read_bytes())
    line = complaint(tmp_path, "server", table(other / ALPHA))
    assert line.startswith("cluster.certificate: ") and "issuer" in line


@pytest.mark.parametrize("use", ["serverAuth", "clientAuth"])
def test_a_certificate_for_one_side_alone_is_refused(tmp_path, use):
    made = make(tmp_path / "half")
    sign(made, ALPHA, ("basicConstraints = critical, CA:FALSE", f"extendedKeyUsage = {use}"))
    assert complaint(tmp_path, "server", table(made / ALPHA)).startswith("cluster.certificate: ")


def test_two_authorities_may_be_believed_while_one_follows_the_other(tmp_path, made):
    newer = make(tmp_path / "newer")
    files_of(newer, ALPHA).ca.write_bytes((made / "ca.crt").read_bytes() + (newer / "ca.crt").read_bytes())
    assert load(tmp_path, table(newer / ALPHA)).cluster is not None


def test_one_that_has_ended_starts_and_is_a_problem_for_the_check(tmp_path):
    made = make(tmp_path / "ended")
    sign(made, ALPHA, USUAL, begins_and_ends=EXPIRED)
    assert load(tmp_path, table(made / ALPHA)).cluster.certificate_ends < time.time()
    config = make_config(tmp_path / "config")
    (config / "server.toml").write_text(table(made / ALPHA))
    problems = [line for line in check_directory(config) if "cluster" in line]
    assert len(problems) == 1 and "has ended at 2025-02-01 00:00:00 UTC" in problems[0], problems


def test_an_end_is_told_of_three_weeks_before():
    ends = 1_800_000_000
    assert trouble_with_end(ends, ends - SOON_SECONDS - 1) == ""
    assert trouble_with_end(ends, ends - SOON_SECONDS) == "ends at 2027-01-15 08:00:00 UTC; renew it"
    assert trouble_with_end(ends, ends).startswith("has ended at 2027-01-15 08:00:00 UTC")
