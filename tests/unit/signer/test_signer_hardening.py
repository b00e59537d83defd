"""Aim: a process that holds a key gives up dumps, swap, network and other programs. Method: subprocesses that do, then try.

Each subprocess hardens itself with the signer's own functions and then does what it should no longer be able to do.
"""

import os
import platform
import re
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from signer import hardening, seccomp

ROOT = Path(__file__).parents[3]
HARDEN = """
import ctypes, os, re, socket, sys
from pathlib import Path
from signer.hardening import harden_early, harden_late
def status(name):
    return re.search(rf"^{name}:\\s*(\\S+)", Path("/proc/self/status").read_text(), re.MULTILINE)[1]
listening = socket.socket(socket.AF_UNIX)
listening.bind("\\0" + os.urandom(8).hex())
listening.listen()
secret = os.urandom(32)
told = harden_late(secret, *harden_early())
libc = ctypes.CDLL(None, use_errno=True)
assert not any("filter" in why for why in told[2]), told
"""
needs_filter = pytest.mark.skipif(
    platform.machine() not in seccomp._MACHINES or not Path("/proc/sys/kernel/seccomp").exists(),
    reason="the kernel or machine has no seccomp filter that we know",
)


def run(script: str, **options: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", HARDEN + textwrap.dedent(script)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, **options)


def output(script: str, **options: object) -> list[str]:
    ended = run(script, **options)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()


def memory_limit(size: int):
    """Return what, in a child before it runs, takes the right to lock more than `size` bytes; root's too."""

    def limit() -> None:
        hardening._libc.prctl(24, hardening._CAP_IPC_LOCK, 0, 0, 0)  # PR_CAPBSET_DROP
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (size, size))

    return limit


def test_no_dumps_no_new_privileges():
    script = """
    import resource
    print(libc.prctl(3, 0, 0, 0, 0), libc.prctl(39, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))
    """
    assert output(script) == ["0", "1", "0", "0"]  # PR_GET_DUMPABLE, PR_GET_NO_NEW_PRIVS, core limits


@pytest.mark.parametrize(("is_hardened", "seen"), [(False, True), (True, False)])
def test_the_same_user_cannot_look_into_the_process(is_hardened, seen):
    become = "import ctypes, os, sys\n"
    if os.geteuid() == 0:  # root may look into everything
        become += "os.setgroups([])\nos.setgid(65534)\nos.setuid(65534)\n"
    become += "ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)\n"  # PR_SET_DUMPABLE, which setuid took away already
    wait = "print('ready', flush=True)\nsys.stdin.read()"
    script = "import re, socket, pathlib, signer.hardening\n" + become + (HARDEN if is_hardened else "") + wait
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        look = become + f"print(len(open('/proc/{process.pid}/maps').read()))"
        ended = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=False)
        process.stdin.close()
    assert (ended.returncode == 0) == seen, ended.stderr
    assert seen or "PermissionError" in ended.stderr


@pytest.mark.parametrize(
    ("size", "done", "is_locked"),
    [
        (0, [], False),
        (1 << 16, ["the key's memory locked"], True),
        (None, ["all memory locked"], True),
    ],
)
def test_as_much_memory_is_locked_as_may_be(size, done, is_locked):
    unlimited = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY
    if size is None and not unlimited and not hardening._may_lock_without_limit():
        pytest.skip("memory may be locked up to a limit here")
    script = """
    more = [bytes(1 << 20) for _ in range(50)]  # a limit must not be met later
    print(*(what.replace(" ", "_") for what in told[0] if "memory" in what), status("VmLck") != "0", bool(told[2]))
    """
    told = [what.replace(" ", "_") for what in done]
    assert output(script, preexec_fn=None if size is None else memory_limit(size)) == [*told, str(is_locked), str(not is_locked)]


def test_the_keys_own_page_is_locked():
    """By the map of the process: the mapping that holds the secret has locked pages."""
    script = """
    start, locked = id(secret) + bytes.__basicsize__ - 1, None
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(match[1], 16) <= start < int(match[2], 16)
        elif inside and line.startswith("VmFlags:"):
            locked = "lo" in line.split()
    print(locked)
    """
    for size in (1 << 16, 8 << 20):
        assert output(script, preexec_fn=memory_limit(size)) == ["True"]


@needs_filter
def test_sockets_and_programs_are_refused():
    script = """
    import subprocess, threading
    def refused(action):
        try:
            action()
        except PermissionError:
            return
        raise SystemExit(f"not refused: {action.__code__.co_names}")
    ours, theirs = socket.socketpair()
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, socket.AF_PACKET):
        refused(lambda: socket.socket(family))
    refused(lambda: ours.connect("\\0anything"))
    refused(lambda: ours.bind("\\0anything"))
    refused(lambda: socket.send_fds(ours, [b"x"], [0]))
    refused(lambda: socket.recv_fds(ours, 1, 1))
    refused(lambda: os.execv("/bin/true", ["true"]))
    refused(lambda: os.fork())
    refused(lambda: subprocess.run(["/bin/true"]))
    refused(lambda: os.kill(os.getppid(), 0))
    refused(lambda: os.setuid(65534))
    refused(lambda: os.chroot("/"))
    print("refused")
    """
    assert output(script) == ["refused"]


@needs_filter
def test_every_call_of_the_list_is_refused():
    script = """
    import platform
    from signer.seccomp import _MACHINES, denied_numbers
    assert status("Seccomp") == "2"
    def result(number, *arguments):
        ctypes.set_errno(0)
        return libc.syscall(number, *arguments), ctypes.get_errno()
    for name, number in denied_numbers(platform.machine()).items():
        assert result(number, *[-1] * 6) == (-1, 1), name
    clone = _MACHINES[platform.machine()].clone
    assert result(clone, 17, 0, 0, 0, 0) == (-1, 1)  # SIGCHLD: a process, not a thread
    assert result(435, 0, 0) == (-1, 38)
    print("refused")
    """
    assert output(script) == ["refused"]


@needs_filter
@pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 is a convention of x86-64")
def test_the_numbers_of_another_convention_end_the_process():
    ended = run("libc.syscall(0x40000000 | 39)\nprint('alive')")
    assert (ended.returncode, ended.stdout) == (-signal.SIGSYS, "")


@needs_filter
def test_what_the_signer_does_is_allowed(tmp_path):
    script = f"""
    import asyncio, sqlite3, threading, uvloop
    from signer.files import make_directory, write_durably
    make_directory(Path({str(tmp_path)!r}) / "a" / "b")
    database = sqlite3.connect({str(tmp_path / "database")!r}, isolation_level=None)
    database.execute("PRAGMA synchronous = EXTRA")
    database.execute("CREATE TABLE t (x)")
    database.execute("INSERT INTO t VALUES (1)")
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    loop = uvloop.new_event_loop()
    loop.add_signal_handler(15, loop.stop)
    loop.call_later(0.1, loop.stop)
    server = loop.run_until_complete(loop.create_unix_server(asyncio.Protocol, sock=listening))
    loop.run_forever()
    print(database.execute("SELECT * FROM t").fetchall(), len(os.urandom(8)))
    """
    assert output(script) == ["[(1,)]", "8"]


@needs_filter
def test_a_network_namespace_of_its_own_if_that_is_allowed():
    script = """
    if "no network" in told[0]:
        print("own", *[line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]])
    else:
        print("shared" if any(why.startswith("no network: ") for why in told[1]) else "untold")
    """
    told, *_ = answer = output(script)
    assert answer in (["own", "lo"], ["own"]) or told == "shared"


def test_an_unknown_machine_is_told_and_needed(monkeypatch):
    monkeypatch.setattr(seccomp.platform, "machine", lambda: "pdp11")
    with pytest.raises(OSError, match="pdp11"):
        seccomp.apply_filter()
    done, failed = [], []
    hardening._attempt("system calls filtered", seccomp.apply_filter, done, failed)
    assert (done, failed) == ([], ["system calls filtered: the numbers of pdp11 are not known here"])


HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.mark.parametrize("machine", HEADERS)
def test_the_numbers_are_the_kernels(machine):
    if not HEADERS[machine].exists():
        pytest.skip("the kernel's headers are not installed")
    there = dict(re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADERS[machine].read_text(), re.MULTILINE))
    named = {**seccomp.denied_numbers(machine), "clone": seccomp._MACHINES[machine].clone, "clone3": seccomp._CLONE3}
    assert {name: str(number) for name, number in named.items()} == {name: there[name] for name in named}
    without = seccomp._DENIED.keys() - seccomp.denied_numbers(machine).keys()
    assert not without & there.keys()


@pytest.mark.parametrize("machine", HEADERS)
def test_the_filter_is_short_enough_for_its_jumps(machine):
    steps = seccomp.program(machine)
    assert len(steps) % 8 == 0 and len(steps) // 8 < 4096


@needs_filter
def test_beside_another_thread_there_is_no_filter():
    script = """
    import threading
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    from signer.seccomp import apply_filter
    try:
        apply_filter()
    except OSError as error:
        print(error.strerror, flush=True)
    os._exit(0)
    """
    assert output(script) == ["another", "thread", "runs"]
