"""Scene: the compiled call alone, without a server. Row 1: one whole payment, text in and state updated, in V."""

import time

from bench.load.scene import Scene, Step
from bench.samples import COUNT, QUERIES, SAMPLE, loaded_table, verify_batch
from paychan._fast.status import Status
from tests.differential.channels import NOW

REPETITIONS = 7
"""In each round; the fastest counts, of both, as interruptions only make them slower."""


class CompiledCall(Scene):
    """Both sides verify the same signatures, turn by turn."""

    def start(self) -> None:
        self._batch = verify_batch(COUNT)

    def steps(self) -> list[Step]:
        return [("compiled call", self._measure)]

    def _measure(self) -> None:
        pairs = [(self._pay_all(), self._verify_all()) for _ in range(REPETITIONS)]
        pay, verify = (min(side) for side in zip(*pairs, strict=True))
        self.record.add("compiled call", {"pay": pay / COUNT, "verify": verify / COUNT})

    def _pay_all(self) -> float:
        table = loaded_table()
        begun = time.thread_time()
        statuses = [table.pay(SAMPLE.path, query, NOW) for query in QUERIES]
        seconds = time.thread_time() - begun
        assert statuses == [Status.ACCEPTED] * COUNT
        return seconds

    def _verify_all(self) -> float:
        begun = time.thread_time()
        valid = self._batch.run()
        seconds = time.thread_time() - begun
        assert valid == COUNT
        return seconds
