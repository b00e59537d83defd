"""Which tests should notice a slip in which module: the most telling first."""

from pathlib import Path

UNIT = Path(__file__).parents[1] / "unit"


def unit_tests(*names: str) -> tuple[str, ...]:
    """Return where the unit tests of these names are, from the checkout's root. Raises ValueError for a name that no file has."""
    found = {file.stem.removeprefix("test_"): file for file in UNIT.rglob("test_*.py")}
    if unknown := set(names) - set(found):
        raise ValueError(f"no unit tests are called {unknown}")
    return tuple(str(found[name].relative_to(UNIT.parents[1])) for name in names)


MODULES: dict[str, tuple[str, ...]] = {
    # the core
    "paychan/core/units.py": unit_tests("units", "settlement"),
    "paychan/core/outpoint.py": unit_tests("outpoint"),
    "paychan/core/script.py": unit_tests("script", "settlement"),
    "paychan/core/payment.py": unit_tests("fast_payment", "settlement"),
    "paychan/core/channel.py": unit_tests("channel_records", "transitions", "settlement"),
    "paychan/core/settlement.py": unit_tests("settlement"),
    "paychan/core/refund.py": unit_tests("refund"),
    "paychan/core/sharding.py": unit_tests("sharding"),
    "paychan/core/standardness.py": unit_tests("standardness"),
    "paychan/core/fees.py": unit_tests("fees"),
    "paychan/core/network.py": unit_tests("network", "bech32"),
    "paychan/core/bech32.py": unit_tests("bech32"),
    "paychan/core/address_script.py": unit_tests("standardness", "bech32", "signer_policy"),
    "paychan/clock.py": unit_tests("clock"),
    # the store's rules
    "store/table.py": unit_tests("store_table", "store_group", "store_engine"),
    "store/group.py": unit_tests("store_group", "store_table", "store_sequencer"),
    "store/leases.py": unit_tests("store_leases"),
    "store/sequencer.py": unit_tests("store_sequencer"),
    "store/server.py": unit_tests("store_server"),
    "store/keys.py": unit_tests("store_keys", "store_engine"),
    "store/mark.py": unit_tests("store_mark"),
    "store/identity.py": unit_tests("store_identity"),
    # the signer's
    "signer/policy.py": unit_tests("signer_policy"),
    "signer/ledger.py": unit_tests("signer_ledger"),
    "signer/keys.py": unit_tests("signer_keys", "config", "dangers"),
    # what decides about money in the server
    "paychan/server/channels/opening.py": unit_tests("opening"),
    "paychan/server/channels/life.py": unit_tests("life"),
    "paychan/server/channels/funding.py": unit_tests("funding"),
    "paychan/server/shards/loading.py": unit_tests("loading"),
    "paychan/server/shards/committer.py": unit_tests("committer"),
    "paychan/server/settlement/settler.py": unit_tests("settler"),
    "paychan/server/settlement/largest.py": unit_tests("largest"),
    "paychan/server/settlement/settling.py": unit_tests("settling"),
    "paychan/server/settlement/watcher.py": unit_tests("watcher"),
    "paychan/server/settlement/tip.py": unit_tests("tip"),
}
