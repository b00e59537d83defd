"""The server's key: made, read and checked. The key file holds 64 hexadecimal digits and a newline, mode 0600."""

import os
import secrets
import stat
from pathlib import Path

from coincurve import PrivateKey

from paychan.core.errors import ConfigError
from paychan.core.keyfile import KEY_FILE_SIZE_MAX, parse_key_text
from paychan.core.network import LIVE
from paychan.durable import sync_directory
from paychan.settings.dangers import PUBLISHED_PUBKEYS, pays_to_key
from paychan.settings.models import SignerConfig

from .files import make_directory, write_durably


def create_key(path: Path) -> PrivateKey:
    """Make a new key in a new file and return it. Raises FileExistsError rather than overwrite, OSError.

    The file and its directory are synced: a key that is lost after its address was funded is money lost.
    """
    key = PrivateKey(secrets.token_bytes(32))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_durably(descriptor, key.secret.hex().encode() + b"\n")
        sync_directory(path.parent)
    except OSError:  # a full disk: half a key would be in the way when there is room
        path.unlink()
        raise
    finally:
        os.close(descriptor)
    return key


def load_key(config: SignerConfig) -> PrivateKey:
    """Return the configured key; in debug mode a missing one is made. Raises ConfigError, never quoting the file."""
    if config.common.debug and not config.key_file.exists():
        make_directory(config.key_file.parent)
        return create_key(config.key_file)
    try:
        key = _read_key(config.key_file)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{config.common.source}: signer.key_file: {config.key_file}: {why}") from None
    if config.common.network is LIVE and public_key(key).hex() in PUBLISHED_PUBKEYS:
        raise ConfigError(f"{config.common.source}: signer.key_file: this key is published; anyone could sign with it")
    if config.common.network is LIVE and pays_to_key(config.destination_script, public_key(key)):
        where = f"{config.common.source}: policy.funds_destination_address"
        raise ConfigError(f"{where}: belongs to this machine's own key: what is settled would stay where it can be stolen")
    return key


def _read_key(path: Path) -> PrivateKey:
    """Return the key in a file that only we can read. Raises OSError, and ValueError saying what is wrong."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not make us wait
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("is not a regular file")
        if status.st_mode & 0o077:
            raise ValueError("is open to group or others; its mode must be 0600")
        if status.st_uid != os.geteuid():
            raise ValueError("belongs to another user than the signer")
        secret = parse_key_text(os.read(descriptor, KEY_FILE_SIZE_MAX + 1))
    finally:
        os.close(descriptor)
    if secret is None:
        raise ValueError("must hold 64 hexadecimal digits and a newline")
    try:
        return PrivateKey(secret)
    except ValueError:
        raise ValueError("does not hold a valid secret key") from None


def public_key(key: PrivateKey) -> bytes:
    """Return the compressed public key, 33 bytes."""
    return key.public_key.format(compressed=True)


def publish_public_key(path: Path, pubkey: bytes) -> None:
    """Write 66 hexadecimal digits and a newline, readable by all, so that a reader sees the old file or the new one."""
    make_directory(path.parent)
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.fchmod(descriptor, 0o644)
        write_durably(descriptor, pubkey.hex().encode() + b"\n")
    finally:
        os.close(descriptor)
    os.replace(temporary, path)
    sync_directory(path.parent)
