OUTCOMES_AT: int
LATENCY_AT: int
GROUP_SIZES_AT: int
RECEIVED_AT: int
CHARGED_AT: int
RETURNED_AT: int
LIMITED_AT: int
COMPILED_END: int
CELLS: int

SHARED: int
OWN: int
BATCH: int
FORWARDED: int
SALE_DOOR: int
REQUESTS: int
DOORS: int

DONE: int
TAKEN: int
EMPTIED: int
AGAIN: int
PASSED_ON: int
OUTCOMES: int

BUCKETS: int
HISTOGRAM_CELLS: int
NANOSECONDS_FROM: int
SIZES_FROM: int

class Tally:
    def __init__(self, memory: memoryview | None = None) -> None: ...
    def add(self, cell: int, more: int = 1) -> None: ...
    def set(self, cell: int, value: int) -> None: ...
    def get(self, cell: int) -> int: ...
    def answered(self, door: int, outcome: int) -> None: ...
    def observe(self, at: int, first_power: int, value: int) -> None: ...
