"""Opens an image as paychan-store would, and says what it holds: everything acknowledged and nothing else, or what is wrong."""

import shutil
import traceback
from dataclasses import dataclass
from pathlib import Path

import store.engines.rocksdb as engine
import store.serving as command
from paychan.core.errors import ConfigError
from paychan.hangup import HangUp
from paychan.notify import Manager
from paychan.settings.models import StoreConfig
from store import keys, peek
from store.engines.rocksdb import RocksDB
from store.identity import Identity

from .recording import Recording, fingerprint


@dataclass(frozen=True)
class Finding:
    """What became of an image. refused: the store's own words; problem: empty if the image was judged right."""

    refused: str = ""
    problem: str = ""


def read_all(engine: RocksDB) -> dict[bytes, bytes]:
    """Return the whole database."""
    return dict(engine._db.items())


def open_store(config: StoreConfig) -> dict[bytes, bytes]:
    """Start the store as the command does, up to where it would serve; return what it holds. Raises ConfigError."""
    found: dict[bytes, bytes] = {}

    async def serve(_: StoreConfig, identity: Identity, opened: RocksDB, hang_up: HangUp, manager: Manager) -> None:
        found.update(read_all(opened))

    command._serve, real = serve, command._serve
    engine.peek, real_peek = peek.read_sequence, engine.peek  # a process for each image would take most of the time
    try:
        command.run(config, HangUp(), Manager({}))
    finally:
        command._serve, engine.peek = real, real_peek
    return found


def judge(recording: Recording, config: StoreConfig, acknowledged: int, begun: int) -> Finding:
    """Open the image at `config`'s place. acknowledged, begun: groups, in that order, when the power went."""
    try:
        found = open_store(config)
    except ConfigError as error:
        text = str(error)
        if "has been acknowledged" in text or "the database is gone" in text:  # an honest disk gives no reason for that
            return Finding(refused=text, problem=f"a false alarm: {text}")
        clear = text.startswith(config.common.source) and "Traceback" not in text and "\n" not in text
        return Finding(refused=text, problem="" if clear else "an unclear refusal")
    except BaseException:
        return Finding(problem="no clear refusal: " + traceback.format_exc(limit=-2))
    count = recording.numbers.get(fingerprint(found))
    if count is not None and acknowledged <= count <= begun:
        return Finding()
    if not acknowledged and set(found) == {keys.IDENTITY}:
        return Finding()  # nothing was said yet: a new store
    if count is not None:
        return Finding(problem=f"holds the first {count} groups; {acknowledged} were acknowledged, {begun} begun")
    return Finding(problem=f"holds what never was: {compare(recording.content(acknowledged), found)}")


def compare(wanted: dict[bytes, bytes], found: dict[bytes, bytes]) -> str:
    missing = sorted(key for key in wanted if key not in found)
    more = sorted(key for key in found if key not in wanted)
    other = sorted(key for key in found if key in wanted and found[key] != wanted[key])
    parts = ((f"{len(names)} {word}", names[:3]) for names, word in ((missing, "missing"), (more, "unknown"), (other, "different")))
    return "; ".join(f"{text} {[name.hex()[:12] for name in names]}" for text, names in parts)


def discard(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
