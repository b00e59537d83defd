"""A system whose metrics are served, and what they say: read from the port, as Prometheus would."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port
from tests.system import Client, System, running, wait_until

_SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-z_]+="[^"]*",?)*)\})? (\S+)')

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def listening(port: int) -> dict[str, dict[str, str]]:
    """Return the change of server.toml that has metrics served."""
    return {"server.toml": {"[processes]": f'[metrics]\nlisten = "127.0.0.1:{port}"\n\n[processes]'}}


class Scraper:
    """Asks one system's port."""

    def __init__(self, port: int) -> None:
        self.port = port

    def text(self) -> str:
        client = Client(self.port)
        try:
            answer = client.request("GET", "/metrics")
        finally:
            client.close()
        assert answer.status == 200, answer.body
        return answer.body.decode()

    def samples(self) -> Samples:
        """Return what is counted now: the text is kept for a moment, so one that is younger than this call."""
        time.sleep(0.25)
        return parse(self.text())

    def value(self, name: str, **labels: str) -> float:
        """Return one sample; 0 if it is not shown."""
        return self.samples().get((name, tuple(sorted(labels.items()))), 0)


def parse(text: str) -> Samples:
    """Return the samples of a text. It must have no other lines than those and comments."""
    found: Samples = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        match = _SAMPLE.fullmatch(line)
        assert match, line
        labels = re.findall(r'([a-z_]+)="([^"]*)"', match[2] or "")
        key = match[1], tuple(sorted(labels))
        assert key not in found, f"twice: {line}"
        found[key] = float(match[3])
    return found


def by_outcome(samples: Samples, name: str = "paychan_payments_total", **labels: str) -> dict[str, int]:
    """Return what was counted with these labels, by outcome, without zeros."""
    found: dict[str, int] = {}
    for (metric, pairs), value in samples.items():
        given = dict(pairs)
        if metric == name and value and labels.items() <= given.items():
            found[given["outcome"]] = found.get(given["outcome"], 0) + int(value)
    return found


@contextmanager
def measured(directory: Path, workers: int = 1, **more) -> Iterator[tuple[System, Scraper]]:
    """Run a system, and yield it once its metrics are served and every worker has shown its gauges."""
    scraper = Scraper(free_port())
    with running(directory, workers, changes=listening(scraper.port), **more) as system:
        wait_until(lambda: shows_all(scraper, workers), 20, "serving the metrics")
        yield system, scraper


def shows_all(scraper: Scraper, workers: int) -> bool:
    """Return whether the metrics are served and every worker has its shards; in a cluster, of one machine that is all there is."""
    try:
        found = parse(scraper.text())
    except OSError:
        return False
    samples = {(name, tuple(pair for pair in labels if pair[0] != "machine")): value for (name, labels), value in found.items()}
    key = ("paychan_processes", (("role", "worker"),))
    owned, shards = (samples.get((name, ()), 0) for name in ("paychan_owned_shards", "paychan_shards"))
    return samples[key] == workers and owned == shards > 0
