"""Verifies receipts: signatures, and per channel and key whether they are a chain."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from .chain import Chain, Link, judge
from .claims import ALGORITHM, RECEIPT_CHARACTERS_MAX, TYPE, Claims, read_claims, receipt_hash

LINES_MAX = 1_000_000


@dataclass
class Verdict:
    """problems: of lines that are no receipt of a known key. chains: of all others. amount: satoshi, of all receipts."""

    receipts: int = 0
    amount: int = 0
    problems: list[str] = field(default_factory=list)
    chains: list[Chain] = field(default_factory=list)

    @property
    def word(self) -> str:
        """good: all are there and true; incomplete: all are true, and one in the middle is missing; bad: all else."""
        if not self.receipts or self.problems or any(chain.problems for chain in self.chains):
            return "bad"
        return "incomplete" if any(chain.gaps for chain in self.chains) else "good"

    @property
    def is_good(self) -> bool:
        """Whether all receipts are there and true."""
        return self.word == "good"

    def as_object(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"verdict": self.word, **asdict(self)}


def read_receipt(text: str, keys: Mapping[str, OKPKey]) -> tuple[str, Claims]:
    """Return who signed a receipt (the key's thumbprint) and what it says. Raises ValueError, which quotes nothing of it."""
    if len(text) > RECEIPT_CHARACTERS_MAX or not text.isascii():
        raise ValueError("it is no JWS in compact form")
    try:
        header = jws.extract_compact(text.encode()).headers()
    except (JoseError, ValueError) as error:
        raise ValueError("it is no JWS in compact form") from error
    name = header.get("kid")
    if header.get("alg") != ALGORITHM or header.get("typ") != TYPE or not isinstance(name, str):
        raise ValueError("it is no receipt")
    if name not in keys:
        raise ValueError("its key is not among the known ones")
    try:
        payload = jws.deserialize_compact(text, keys[name], algorithms=[ALGORITHM]).payload
    except (JoseError, ValueError) as error:
        raise ValueError("its signature does not fit") from error
    try:
        return name, read_claims(json.loads(payload))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its signature fits, and it makes no sense: {error}") from error


def examine(lines: Iterable[str], keys: Mapping[str, OKPKey]) -> Verdict:
    """Judge receipts, one a line; empty lines are left aside. keys: by thumbprint."""
    verdict = Verdict()
    links: dict[tuple[str, str], list[Link]] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            continue
        if number > LINES_MAX:
            verdict.problems.append(f"there are more than {LINES_MAX} lines")
            break
        try:
            key, claims = read_receipt(text, keys)
        except ValueError as error:
            verdict.problems.append(f"line {number}: {error}")
            continue
        links.setdefault((claims.channel_id, key), []).append(Link(number, receipt_hash(text), claims))
    verdict.chains = [judge(channel_id, key, chain) for (channel_id, key), chain in links.items()]
    verdict.receipts = sum(chain.receipts for chain in verdict.chains)
    verdict.amount = sum(chain.amount for chain in verdict.chains)
    return verdict
