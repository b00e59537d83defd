"""Aim: the key file is made once, read only if private, and never quoted. Method: real files in tmp_path."""

import errno
import os
import stat

import pytest
from coincurve import PrivateKey

from paychan.client import StateError, read_key
from paychan.client import create_key as create_payers_key
from paychan.core.errors import ConfigError
from paychan.settings.load import load_signer_config
from signer.keys import create_key, load_key, public_key, publish_public_key

KEY = PrivateKey(bytes.fromhex("9b4b4cf8f8796ca8a3a8a3da5c73deeb7c558a89e3752b896349ec58c010879d"))
CONFIG = """
network = "test"
state_dir = "{}"
[debug]
enable = {}
[signer]
address = "unix:run/signer.sock"
[policy]
funds_destination_address = "mm9mm96b8bZRBacaAvY5MEeDd6HW46qFcY"
fee_per_byte_max = 500
fee_share_percent_max = 50
"""


def config(tmp_path, debug=False):
    path = tmp_path / "signer.toml"
    path.write_text(CONFIG.format(tmp_path / "state", str(debug).lower()))
    return load_signer_config(path, {})


def put_key(path, text, mode=0o600):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text)
    path.chmod(mode)


def complaint(settings) -> str:
    with pytest.raises(ConfigError) as caught:
        load_key(settings)
    line = str(caught.value)
    assert line.startswith(f"{settings.common.source}: signer.key_file: ")
    assert "\n" not in line
    assert "9b4b4c" not in line
    return line


def test_create_makes_a_private_file_and_never_overwrites(tmp_path):
    path = tmp_path / "signer.key"
    key = create_key(path)
    assert path.read_text() == key.secret.hex() + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        create_key(path)
    assert path.read_text() == key.secret.hex() + "\n"


TEXTS = [KEY.secret.hex(), KEY.secret.hex() + "\n", KEY.secret.hex().upper() + "\n", KEY.secret.hex().upper() + "\r\n"]


@pytest.mark.parametrize("text", TEXTS)
def test_the_payer_takes_the_same_texts(tmp_path, text):
    put_key(tmp_path / "key", text.encode())
    assert read_key(tmp_path / "key").secret == KEY.secret


@pytest.mark.parametrize("make", [create_key, create_payers_key])
def test_a_key_that_could_not_be_written_is_not_in_the_way_later(tmp_path, monkeypatch, make):
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises((OSError, StateError), match="No space left"):
            make(tmp_path / "key")
    assert make(tmp_path / "key").secret


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_load_takes_a_private_key_file(tmp_path, text, mode):
    settings = config(tmp_path)
    put_key(settings.key_file, text.encode(), mode)
    assert load_key(settings).secret == KEY.secret


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o666, 0o610, 0o601])
def test_load_refuses_a_file_that_others_may_open(tmp_path, mode):
    settings = config(tmp_path)
    put_key(settings.key_file, KEY.secret.hex().encode(), mode)
    assert "0600" in complaint(settings)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        KEY.secret.hex()[:-1].encode(),
        KEY.secret.hex().encode() + b"0",
        KEY.secret.hex().encode() + b"\n\n",
        KEY.secret.hex().encode() + b"\r",
        KEY.secret.hex().encode() + b"\r\n\n",
        b" " + KEY.secret.hex().encode(),
        b"g" * 64,
        KEY.secret,
        b"\xff" * 64,
        b"0" * 64,
        b"f" * 64,
        b"fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
    ],
)
def test_load_refuses_what_is_no_key(tmp_path, text):
    settings = config(tmp_path)
    put_key(settings.key_file, text)
    complaint(settings)
    with pytest.raises(StateError):
        read_key(settings.key_file)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_load_refuses_what_is_no_file_without_waiting(tmp_path, make):
    settings = config(tmp_path, debug=True)
    settings.key_file.parent.mkdir()
    make(settings.key_file, 0o600)
    complaint(settings)


def test_a_missing_key_is_made_in_debug_mode_only(tmp_path):
    assert "No such file" in complaint(config(tmp_path))
    settings = config(tmp_path, debug=True)
    key = load_key(settings)
    assert stat.S_IMODE(settings.key_file.stat().st_mode) == 0o600
    assert load_key(settings).secret == key.secret


@pytest.mark.privileged("only root can give a file away")
def test_another_users_key_file_is_refused(tmp_path):
    settings = config(tmp_path)
    put_key(settings.key_file, KEY.secret.hex().encode())
    os.chown(settings.key_file, 65534, -1)
    assert "another user" in complaint(settings)


def test_the_public_key_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "run" / "signer.pub"
    publish_public_key(path, bytes(33))
    publish_public_key(path, public_key(KEY))
    assert path.read_text() == public_key(KEY).hex() + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == ["signer.pub"]


def synced_by(action, monkeypatch) -> list[str]:
    """Return what an action syncs, in order."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    action()
    return synced


def test_a_new_key_and_its_name_are_on_disk_before_anybody_hears_of_it(tmp_path, monkeypatch):
    path = tmp_path / "signer.key"
    assert synced_by(lambda: create_key(path), monkeypatch) == [str(path), str(tmp_path)]


def test_the_public_key_file_is_synced_before_it_takes_its_name(tmp_path, monkeypatch):
    path = tmp_path / "signer.pub"
    synced = synced_by(lambda: publish_public_key(path, public_key(KEY)), monkeypatch)
    assert synced == [str(tmp_path / "signer.pub.new"), str(tmp_path)]


def test_no_descriptor_is_left_open(tmp_path):
    settings = config(tmp_path)
    put_key(settings.key_file, KEY.secret.hex().encode())
    before = os.listdir("/proc/self/fd")
    load_key(settings)
    create_key(tmp_path / "other.key")
    publish_public_key(tmp_path / "signer.pub", public_key(KEY))
    put_key(settings.key_file, b"no key")
    complaint(settings)
    assert set(os.listdir("/proc/self/fd")) <= set(before)


def test_keys_are_new_each_time(tmp_path):
    secrets = [create_key(tmp_path / name).secret for name in ("a", "b")]
    assert secrets[0] != secrets[1]
    assert [len(secret) for secret in secrets] == [32, 32]


def test_a_key_file_that_goes_on_behind_the_key_is_refused(tmp_path):
    settings = config(tmp_path)
    put_key(settings.key_file, KEY.secret.hex().encode() + b"\n" + b"x" * 100)
    complaint(settings)


def test_public_keys_are_compressed():
    assert len(public_key(KEY)) == 33


def test_the_public_key_file_can_be_read_by_all_whatever_the_umask(tmp_path):
    path = tmp_path / "signer.pub"
    before = os.umask(0o077)
    try:
        publish_public_key(path, public_key(KEY))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
