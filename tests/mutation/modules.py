"""Which tests should notice a slip in which module: the most telling first."""


def _unit(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/unit/test_{name}.py" for name in names)


MODULES: dict[str, tuple[str, ...]] = {
    # the core
    "paychan/core/units.py": _unit("units", "settlement"),
    "paychan/core/outpoint.py": _unit("outpoint"),
    "paychan/core/script.py": _unit("script", "settlement"),
    "paychan/core/payment.py": _unit("fast_payment", "settlement"),
    "paychan/core/channel.py": _unit("channel_records", "transitions", "settlement"),
    "paychan/core/settlement.py": _unit("settlement"),
    "paychan/core/refund.py": _unit("refund"),
    "paychan/core/sharding.py": _unit("sharding"),
    "paychan/core/standardness.py": _unit("standardness"),
    "paychan/core/fees.py": _unit("fees"),
    "paychan/core/network.py": _unit("network"),
    "paychan/clock.py": _unit("clock"),
    # the store's rules
    "store/table.py": _unit("store_table", "store_group", "store_engine"),
    "store/group.py": _unit("store_group", "store_table", "store_sequencer"),
    "store/leases.py": _unit("store_leases"),
    "store/sequencer.py": _unit("store_sequencer"),
    "store/server.py": _unit("store_server"),
    "store/keys.py": _unit("store_keys", "store_engine"),
    "store/mark.py": _unit("store_mark"),
    "store/identity.py": _unit("store_identity"),
    # the signer's
    "signer/policy.py": _unit("signer_policy"),
    "signer/ledger.py": _unit("signer_ledger"),
    "signer/keys.py": _unit("signer_keys", "config", "dangers"),
    # what decides about money in the server
    "paychan/server/channels/opening.py": _unit("opening"),
    "paychan/server/channels/life.py": _unit("engine"),
    "paychan/server/channels/funding.py": _unit("funding_checks"),
    "paychan/server/shards/loading.py": _unit("loading"),
    "paychan/server/shards/committer.py": _unit("committer"),
    "paychan/server/settlement/settler.py": _unit("settler"),
    "paychan/server/settlement/settling.py": _unit("settling"),
    "paychan/server/settlement/watcher.py": _unit("watcher"),
    "paychan/server/settlement/tip.py": _unit("tip"),
}
