from .channel import ChannelTable

def judge(
    table: ChannelTable,
    kind: int,
    outpoint: bytes,
    key: bytes,
    amount: int,
    number: int,
    until: int,
    payment: bytes | None,
    now: int,
    time: int,
    attempt: int = 0,
) -> tuple[int, int, int, tuple[int, int, int, int]]: ...
