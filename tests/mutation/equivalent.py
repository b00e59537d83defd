"""Mutants that are no slips: nobody could tell them from the original, and why. By module, then by line and change."""

EQUIVALENT: dict[str, dict[tuple[str, str], str]] = {}
