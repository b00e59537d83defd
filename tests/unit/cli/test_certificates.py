"""Aim: `paychan cluster certificates` makes what the servers take, renews it in time, and loses or shows no key. Method: the real
command with the real openssl; what it made is tried as peers would try it. Then without openssl, and with one that fails."""

import json
import os
import shutil
import ssl
import stat
import sys
import time
from pathlib import Path

import pytest

from paychan.__main__ import main
from paychan.cli.certificates import AUTHORITY_DAYS, DATABASE, DAYS, PEER, RENEWED_BEFORE, Machine, make_certificates
from paychan.rpc.peer_tls import CertificateError, CertificateFiles, prove
from tests.certificates import ALPHA, BETA, files_of, need_openssl, run

HOSTS = ("--host", ALPHA, "--host", f"{BETA},beta.example,fd00::2")
DAY = 86_400


@pytest.fixture
def command(monkeypatch, capsys):
    def typed(*words):
        monkeypatch.setattr(sys, "argv", ["paychan", "cluster", "certificates", *map(str, words)])
        try:
            status = main()
        except SystemExit as error:
            status = error.code
        said = capsys.readouterr()
        assert "Traceback" not in said.err and "PRIVATE" not in said.out + said.err
        return status, said.out, said.err

    return typed


@pytest.fixture(autouse=True)
def openssl():
    need_openssl()


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A cluster's certificates and a database's, just made: dozens of calls of openssl, so they are made once and copied."""
    need_openssl()
    place = tmp_path_factory.mktemp("originals")
    workers = [Machine((ALPHA,)), Machine((BETA, "beta.example", "fd00::2"))]
    make_certificates(place / "cluster", workers, time.time(), DAYS, False, PEER)
    make_certificates(place / "db", [Machine((ALPHA,)), Machine((BETA,))], time.time(), DAYS, False, DATABASE)
    return place


@pytest.fixture
def cluster(originals, tmp_path):
    return Path(shutil.copytree(originals / "cluster", tmp_path / "cluster"))


@pytest.fixture
def db(originals, tmp_path):
    return Path(shutil.copytree(originals / "db", tmp_path / "db"))


def serial(path: Path) -> str:
    return run("x509", "-in", path, "-noout", "-serial")


def test_what_it_makes_is_taken_for_each_name_and_no_other(tmp_path, command):
    made = tmp_path / "cluster"
    assert command(made, *HOSTS) == (0, f"{made / ALPHA}: made\n{made / BETA}: made\n", "")
    now = time.time()
    for host, names in ((ALPHA, [ALPHA]), (BETA, [BETA, "beta.example", "fd00::2"])):
        for name in names:
            assert abs(prove(files_of(made, host), name) - now - DAYS * DAY) < DAY
        with pytest.raises(CertificateError, match="mismatch"):
            prove(files_of(made, host), "other.example")
    ends = run("x509", "-in", made / "ca.crt", "-noout", "-enddate").removeprefix("notAfter=").strip()
    assert abs(ssl.cert_time_to_seconds(ends) - now - AUTHORITY_DAYS * DAY) < DAY


def test_nothing_of_it_is_open_to_others_whatever_the_umask(tmp_path, command):
    made, before = tmp_path / "cluster", os.umask(0)
    try:
        command(made, *HOSTS)
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    found = list(made.rglob("*"))
    assert {path.name for path in found} == {ALPHA, BETA, "ca.crt", "ca.key", "peer.crt", "peer.key"}  # and nothing left over
    assert all(not path.stat().st_mode & 0o077 for path in found)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in found if path.name.endswith(".key"))
    assert not (made / ALPHA / "ca.key").exists()


def test_the_authority_signs_for_machines_and_for_no_other_authority(cluster):
    text = run("x509", "-in", cluster / "ca.crt", "-noout", "-text")
    assert "CA:TRUE, pathlen:0" in text and "Certificate Sign" in text
    text = run("x509", "-in", files_of(cluster, ALPHA).certificate, "-noout", "-text")
    assert "CA:FALSE" in text and "TLS Web Server Authentication, TLS Web Client Authentication" in text


def test_a_second_run_keeps_what_is_good_and_renews_what_ends_soon(cluster, command):
    made = cluster
    files = files_of(made, ALPHA)
    before, authority = serial(files.certificate), serial(made / "ca.crt")
    status, out, _ = command(made, *HOSTS, "--host", "gamma.example", "--json")
    rows = json.loads(out)["certificates"]
    assert status == 0 and [row["done"] for row in rows] == ["kept", "kept", "made"]
    assert rows[2] == {"host": "gamma.example", "directory": str(made / "gamma.example"), "done": "made"}
    # A third of so many days is more than what is left of it.
    assert command(made, "--host", ALPHA, "--days", (DAYS + 1) * RENEWED_BEFORE)[1] == f"{made / ALPHA}: renewed\n"
    assert serial(files.certificate) != before and serial(made / "ca.crt") == authority
    assert prove(files, ALPHA) > time.time() + DAYS * DAY


def test_renew_makes_all_anew_with_new_keys(cluster, command):
    made = cluster
    keys = [files_of(made, host).key.read_text() for host in (ALPHA, BETA)]
    assert command(made, *HOSTS, "--renew")[1].count(": renewed\n") == 2
    assert not {files_of(made, host).key.read_text() for host in (ALPHA, BETA)} & set(keys)
    old = CertificateFiles(made / "ca.crt", made / ALPHA / "peer.crt", made / ALPHA / "peer.key")
    prove(old, ALPHA)


@pytest.mark.parametrize("spoil", ["key", "certificate", "ca", "name"])
def test_what_is_damaged_or_lacks_a_name_is_made_anew(cluster, command, spoil):
    made, hosts = cluster, ("--host", ALPHA)
    if spoil == "name":
        hosts = ("--host", f"{ALPHA},alpha.example")
    else:
        getattr(files_of(made, ALPHA), spoil).write_text("damaged\n")
    assert command(made, *hosts)[1] == f"{made / ALPHA}: renewed\n"
    prove(files_of(made, ALPHA), hosts[1].split(",")[-1])


@pytest.mark.parametrize("missing", ["ca.crt", "ca.key"])
def test_half_an_authority_is_not_replaced(cluster, command, missing):
    made = cluster
    (made / missing).unlink()
    status, out, err = command(made, *HOSTS, "--renew")
    assert (status, out) == (1, "") and f"{made / missing} is missing beside" in err
    assert not (made / missing).exists()


@pytest.mark.parametrize(
    "words",
    [(), ("--host", ""), ("--host", "a,,b"), ("--host", "../x"), ("--host", "https://x"), ("--host", "a b"), ("--host", "a/b"),
     ("--host", ALPHA, "--days", "0"), ("--host", ALPHA, "--days", "99999"), ("--host", ALPHA, "--days", "x")],
)  # fmt: skip
def test_wrong_usage_is_told_and_makes_nothing(tmp_path, command, words):
    status, out, err = command(tmp_path / "cluster", *words)
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert not (tmp_path / "cluster").exists()


def test_without_openssl_it_says_what_to_install(tmp_path, command, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    status, out, err = command(tmp_path / "cluster", *HOSTS)
    assert (status, out) == (1, "")
    assert "there is no `openssl` command here; the package openssl" in err


def test_an_openssl_that_fails_is_told_in_a_line_and_nothing_half_made_is_left(tmp_path, command, monkeypatch):
    odd = tmp_path / "bin" / "openssl"
    odd.parent.mkdir()
    odd.write_text("#!/bin/sh\necho 'it is' >&2\necho broken >&2\nexit 3\n")
    odd.chmod(0o755)
    monkeypatch.setenv("PATH", f"{odd.parent}:{os.environ['PATH']}")
    status, out, err = command(tmp_path / "cluster", *HOSTS)
    assert (status, out) == (1, "") and "openssl genpkey: it is broken" in err and err.count("\n") == 1
    assert list((tmp_path / "cluster").iterdir()) == []


def test_a_directory_that_cannot_be_written_is_told(tmp_path, command):
    (tmp_path / "file").write_text("")
    status, out, err = command(tmp_path / "file" / "cluster", *HOSTS)
    assert (status, out) == (1, "") and "Not a directory" in err


# --- of the database ---


def database(made, *more):
    return (made, "--for", "database", "--host", ALPHA, "--host", BETA, *more)


def certificate_of(made, stem):
    return made / ALPHA / f"{stem}.crt"


def test_a_machine_of_the_database_is_a_server_and_each_role_is_a_client_of_that_name(tmp_path, command):
    made = tmp_path / "db"
    assert command(*database(made)) == (0, f"{made / ALPHA}: made\n{made / BETA}: made\n", "")
    for kind in DATABASE:
        text = run("x509", "-in", certificate_of(made, kind.stem), "-noout", "-text")
        assert f"CN = {kind.role or ALPHA}\n" in text
        assert ("TLS Web Server Authentication" in text) is (not kind.role) and "TLS Web Client Authentication" in text
    with pytest.raises(CertificateError, match="unsuitable|purpose"):  # a role cannot be the database
        prove(CertificateFiles(made / "ca.crt", certificate_of(made, "rewind"), made / ALPHA / "rewind.key"), ALPHA)
    assert command(*database(made))[1] == f"{made / ALPHA}: kept\n{made / BETA}: kept\n"


@pytest.mark.parametrize("spoil", ["damaged", "another's", "without its key", "gone", "ends soon"])
def test_a_role_without_a_good_certificate_gets_one(db, command, spoil):
    made = db
    before = serial(certificate_of(made, "paychan_store"))
    if spoil == "damaged":
        certificate_of(made, "paychan_store").write_text("damaged\n")
    elif spoil == "another's":
        for suffix in ("crt", "key"):
            (made / ALPHA / f"paychan_store.{suffix}").write_bytes((made / ALPHA / f"rewind.{suffix}").read_bytes())
    elif spoil == "without its key":
        (made / ALPHA / "paychan_store.key").write_bytes((made / ALPHA / "rewind.key").read_bytes())
    elif spoil == "gone":
        certificate_of(made, "paychan_store").unlink()
    days = 4 * DAYS if spoil == "ends soon" else DAYS
    assert command(*database(made, "--days", days))[1].startswith(f"{made / ALPHA}: ")
    assert serial(certificate_of(made, "paychan_store")) != before
    assert command(*database(made, "--days", days))[1] == f"{made / ALPHA}: kept\n{made / BETA}: kept\n"


def test_one_authority_does_not_sign_for_workers_and_the_database(cluster, db, command):
    for words in ((db, *HOSTS), database(cluster, "--renew")):
        status, out, err = command(*words)
        assert (status, out) == (1, "") and "need one each" in err
