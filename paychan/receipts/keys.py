"""The receipts key: Ed25519, in a file of mode 0600 as JWK (RFC 8037). It is never a channel's key: it signs texts, no money."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from ..client.errors import StateError
from ..mpp.text import encode_bytes
from .claims import ALGORITHM

WELL_KNOWN = "/.well-known/payment-receipts.json"
"""Where a seller publishes the public keys of its receipts, as a JWK set: also the old ones."""

FILE_BYTES_MAX = 64 * 1024


def make_key(path: Path) -> OKPKey:
    """Make a key and write it, durably; mode 0600. Raises StateError, also if the file exists."""
    key = OKPKey.generate_key("Ed25519", private=True)
    content = json.dumps({**key.as_dict(private=True), "kid": key.thumbprint(), "alg": ALGORITHM, "use": "sig"}) + "\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise StateError(f"{path}: there is a file already; a key is never overwritten") from error
    except OSError as error:
        raise StateError(f"{path}: the key cannot be written: {error.strerror}") from error
    return key


def read_key(path: Path) -> OKPKey:
    """Return the key in a file. Raises StateError if others may read it, or it is none."""
    try:
        with open(path, "rb") as file:
            mode, raw = os.fstat(file.fileno()).st_mode, file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise StateError(f"{path}: the key cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise StateError(f"{path}: others may read this key; it must have mode 0600")
    key = _okp(_json(path, raw), path)
    if not key.is_private:
        raise StateError(f"{path}: is a public key; the secret one signs")
    return key


def public_jwk(key: OKPKey) -> dict[str, Any]:
    """Return the public half as JWK, named by its thumbprint (RFC 7638)."""
    return {**key.as_dict(private=False), "kid": key.thumbprint(), "alg": ALGORITHM, "use": "sig"}


def public_set(*keys: OKPKey) -> dict[str, Any]:
    """Return what is published at WELL_KNOWN."""
    return {"keys": [public_jwk(key) for key in keys]}


def published(*paths: str | os.PathLike[str]) -> Callable[[], dict[str, Any]]:
    """Return a handler of FastAPI or Flask that answers with the public keys in these files, for a route at WELL_KNOWN:

        app.get(WELL_KNOWN)(published("receipts.key", "older.key"))

    Raises StateError.
    """
    told = public_set(*(key for path in paths for key in read_public(Path(path)).values()))
    return lambda: told


def read_public(path: Path) -> dict[str, OKPKey]:
    """Return the public keys in a file, a JWK or a set of them, by their thumbprints. Raises StateError."""
    try:
        raw = path.read_bytes()[: FILE_BYTES_MAX + 1]
    except OSError as error:
        raise StateError(f"{path}: cannot be read: {error.strerror}") from error
    content = _json(path, raw)
    found = content["keys"] if isinstance(content.get("keys"), list) else [content]
    keys = [_okp(jwk, path) for jwk in found]
    return {key.thumbprint(): key for key in keys}


def _json(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        content = json.loads(raw)
    except ValueError as error:
        raise StateError(f"{path}: is no JSON") from error
    if len(raw) > FILE_BYTES_MAX or not isinstance(content, dict):
        raise StateError(f"{path}: is no JWK, and no set of them")
    return content


def _okp(jwk: Any, path: Path) -> OKPKey:
    try:
        if jwk.get("crv") != "Ed25519":
            raise ValueError("another curve")
        key = OKPKey.import_key(jwk)
        told = key.as_dict(private=False)["x"]
        secret = key.private_key
        if secret is not None and told != encode_bytes(secret.public_key().public_bytes_raw()):
            raise ValueError("the halves do not belong together")
        key.public_key.public_bytes_raw()  # reads the point
        return key
    except (JoseError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise StateError(f"{path}: has what is no Ed25519 key in JWK") from error
