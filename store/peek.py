"""How far a database goes, found out by a process of its own: on a damaged log RocksDB may never return, in every recovery mode.

(A record whose type byte became that of a reused log's, in a log that is none, is enough.) A start that never ends tells an
operator nothing; a process that is given up after PEEK_SECONDS_MAX does. It reads only: to open for writing would drop the log
behind the damage, which somebody may still make sense of.
"""

import subprocess
import sys
from pathlib import Path

from rocksdict import AccessType, Options, Rdict

PEEK_SECONDS_MAX = 120.0  # the greatest log that there may be takes a few seconds to read


def peek(directory: Path) -> int:
    """Return the sequence number of the newest write in the database. Raises ValueError if it does not open, or not in time."""
    command = [sys.executable, "-P", __file__, str(directory)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PEEK_SECONDS_MAX, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"the log is damaged: reading it takes longer than {PEEK_SECONDS_MAX:g} s. Restore a backup") from None
    if done.returncode or not done.stdout.strip().isdigit():
        raise ValueError(done.stderr.strip().rpartition("\n")[2] or f"the process that read it ended with {done.returncode}")
    return int(done.stdout)


def read_sequence(directory: Path) -> int:
    """Do it in this process."""
    database = Rdict(str(directory), Options(raw_mode=True), access_type=AccessType.read_only(False))
    sequence: int = database.latest_sequence_number()
    database.close()
    return sequence


if __name__ == "__main__":
    try:
        print(read_sequence(Path(sys.argv[1])))
    except Exception as error:  # rocksdict has no narrower type
        sys.exit(" ".join(str(error).split()))
