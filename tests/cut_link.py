"""`unshare -Urnm python -m tests.cut_link DIR`: two machines of a cluster whose link is cut and healed while payers pay on both.

Runs in namespaces of its own, in which it may do what root may. Alpha is this network namespace; beta another one, with two links
to it: one for workers, which is cut, and one for beta's payers, which stays. Store and signer are reached through the file system.
Raises AssertionError, or prints what was seen.
"""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.campaign.load import Account, PatientClient
from tests.machines import Machines, Network, two_machines
from tests.system import wait_until
from tests.tiling import check_all

ALPHA, BETA, BETA_FOR_PAYERS = "10.77.0.1", "10.77.0.2", "10.77.1.2"
ACCOUNTS = 12
SILENCE_SECONDS_MAX = 15.0
"""A request for a machine that is cut off is answered within TCP's patience and that of a request whose owner is looked for."""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def build() -> None:
    """Make beta, and both links. The workers' goes over a bridge: when its port is down, what is sent gets lost without a word."""
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    ip("netns", "add", "beta")
    ip("link", "add", "name", "bridge", "type", "bridge")
    for near, far, address in (("port", "workers", BETA), ("payers", "eth1", BETA_FOR_PAYERS)):
        ip("link", "add", "name", near, "type", "veth", "peer", "name", far, "netns", "beta")
        ip("-n", "beta", "addr", "add", f"{address}/24", "dev", far)
        ip("-n", "beta", "link", "set", far, "up")
    ip("-n", "beta", "link", "set", "lo", "up")
    ip("link", "set", "port", "master", "bridge")
    ip("addr", "add", f"{ALPHA}/24", "dev", "bridge")
    ip("addr", "add", "10.77.1.1/24", "dev", "payers")
    for name in ("lo", "bridge", "port", "payers"):
        ip("link", "set", name, "up")


def client_of(machines: Machines, is_beta: bool) -> PatientClient:
    client = PatientClient(machines.second.port if is_beta else machines.port, timeout=SILENCE_SECONDS_MAX)
    if is_beta:
        client._connection.host = BETA_FOR_PAYERS
    return client


def pay_and_be_told(accounts: list[Account], machines: Machines, at_beta: bool) -> float:
    """Have a payment on each, all at once, refused with 503, and keep it; return how long the longest took, in seconds."""

    def ask(account: Account) -> float:
        client, begun = client_of(machines, at_beta), time.monotonic()
        answer = client.request("PUT", account.sender.channel_target(account.sign(5)))
        assert (answer.status, answer.code) == (503, "owner_moved"), answer
        return time.monotonic() - begun

    with ThreadPoolExecutor(len(accounts)) as threads:
        return max(threads.map(ask, accounts))


def owned(accounts: list[Account], machines: Machines, client: PatientClient) -> tuple[list[Account], list[Account]]:
    """Open the channels; return those of alpha and those of beta."""
    of_beta = []
    for account in accounts:
        payment = account.sign(100_000)
        answer = client.request("POST", account.sender.open_target(payment))
        account.note(account.judge(payment, answer, 0))
        if answer.headers["location"].startswith(f"http://{BETA_FOR_PAYERS}:"):
            of_beta.append(account)
    return [account for account in accounts if account not in of_beta], of_beta


def scenario(directory: Path) -> str:
    network = Network(ALPHA, BETA, BETA_FOR_PAYERS, ("ip", "netns", "exec", "beta"))
    with two_machines(directory, network=network) as machines:
        alpha, beta = client_of(machines, False), client_of(machines, True)
        accounts = [Account.of(machines, f"cut-{number}") for number in range(ACCOUNTS)]
        of_alpha, of_beta = owned(accounts, machines, alpha)
        assert len(of_alpha) > 1 and len(of_beta) > 1
        for account in accounts:
            assert account.pay(alpha, 5).received == account.pay(beta, 5).received == 5
        ip("link", "set", "port", "down")
        longest = pay_and_be_told(of_beta, machines, at_beta=False)
        for account in of_alpha:
            assert account.pay(alpha, 5).received == 5
        longest = max(longest, pay_and_be_told(of_alpha, machines, at_beta=True))
        for account in of_beta:  # the one that alpha could not deliver, and one more
            assert account.pay(beta, 5).received == 10
        assert longest < SILENCE_SECONDS_MAX
        ip("link", "set", "port", "up")
        healed = time.monotonic()
        for account in accounts:
            account.pay(alpha, 5)
            account.pay(beta, 5)
        took = time.monotonic() - healed
        for account in accounts:
            account.close(alpha)
        assert check_all([account.history for account in accounts]).problems == []
        wait_until(lambda: machines.ready_workers() == machines.second.ready_workers() == 2, 20, "both machines")
        return f"while cut: told 503 within {longest:.1f} s; all channels paid from both machines {took:.1f} s after it was healed"


if __name__ == "__main__":
    build()
    print(scenario(Path(sys.argv[1])))
