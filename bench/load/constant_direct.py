"""H of a worker's own port: `python -m bench.load.constant_direct PORT` is the same door with the same reading of requests, and an
intake that is never asked to judge: an interlock answers for it, with one constant."""

import argparse
import asyncio
import sys
from email.utils import formatdate

import uvloop

from bench.load.constant import BODY, HEADERS
from bench.load.failure import positive
from paychan import printing
from paychan._fast.channel import ChannelTable
from paychan._fast.commit import CommitQueue
from paychan._fast.direct import DirectDoor
from paychan._fast.intake import Intake

NAME = "python -m bench.load.constant_direct"
FIELDS = [("date", formatdate(usegmt=True)), *HEADERS, ("content-length", str(len(BODY)))]
HEAD = "".join(f"{name}: {value}\r\n" for name, value in FIELDS)
ANSWER = b"HTTP/1.1 200 OK\r\n" + HEAD.encode() + b"\r\n" + BODY


class Constant:
    """A reply that is rendered already. outcome: what it is counted as; status: nobody is blamed for it."""

    outcome, status = 0, 200


class Interlock:
    """The rules of an intake that takes nothing."""

    def look(self) -> tuple[Constant, int]:
        return Constant(), 0


def make_door() -> DirectDoor:
    """Return a door that answers each request with ANSWER."""
    door = DirectDoor(
        answer=lambda request, *_: request.answer(Constant()),
        render=lambda _, __: ANSWER,
        refusal=lambda _: Constant(),
        unquote=str,
        paid_head=lambda _: b"",
        body_paths=(b"/v1/payments",),
        body_max=1 << 20,
        connections_max=4096,
    )
    table = ChannelTable(1, 0)
    door.intake = Intake(table, CommitQueue(table, print, print, 1), Interlock(), [], 0)
    return door


async def serve(port: int) -> None:
    """Serve on loopback until the process is stopped."""
    server = await asyncio.get_running_loop().create_server(make_door().connect, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def main() -> int:
    """Serve on the port that the command line names; return the exit status."""
    parser = argparse.ArgumentParser(prog=NAME, description="Answers every payment with a constant, at 127.0.0.1.")
    parser.add_argument("port", type=positive, metavar="PORT")
    port = parser.parse_args().port
    try:
        uvloop.run(serve(port))
    except (OSError, OverflowError) as error:
        printing.say(f"{NAME}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(printing.run(NAME, main))
