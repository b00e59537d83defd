"""Which key of 2016 is which of ours, what changed its meaning, and what has no counterpart."""

from dataclasses import dataclass

from .seed import Entry, Imported, Note, SeedError

ALL = ("server", "store", "signer")


@dataclass(frozen=True)
class Rule:
    """targets: (file, table, key) of ours, none where there is no counterpart. about: what the reader must know."""

    targets: tuple[tuple[str, str, str], ...] = ()
    about: str = ""


SOCKETS = "no counterpart: store and signer are Unix sockets in state_dir now, which only their users may enter"

PASSWORD = "a secret, not taken over: put it into STATE_DIR/bitcoind.password, mode 0600, or use the node's cookie"
KEY = "a secret, not taken over: `paychan-signer --init` makes a new one; the old one is for old channels"

RULES: dict[str, dict[str, Rule]] = {
    "server": {
        "debug.enable": Rule(tuple((file, "debug", "enable") for file in ALL), "in debug mode nothing is looked up or sent"),
        "bitcoin.network": Rule(tuple((file, "", "network") for file in ALL)),
        "bitcoin.bitcoindRPC.ip": Rule((("server", "bitcoind", "host"),), "on network live it must be this machine"),
        "bitcoin.bitcoindRPC.port": Rule((("server", "bitcoind", "port"),)),
        "bitcoin.bitcoindRPC.user": Rule((("server", "bitcoind", "user"),), "cookie_file needs no password, and is better"),
        "bitcoin.bitcoindRPC.pass": Rule((), PASSWORD),
        "open.fundingTxMinConf": Rule((("server", "open", "funding_tx_min_conf"),), "at least 1 on network live"),
        "open.basePrice": Rule((("server", "open", "base_price"),), 'with price = "settlement" it is added to today\'s cost'),
        "open.priceAddSettlementFee": Rule((("server", "open", "price_add_settlement_fee"),)),
        "settlement.txFeeSatoshiPerByte": Rule(
            (("server", "settlement", "fee_per_byte"),),
            "was the fee of every settlement; now only what is taken where the node has no estimate, and part of a fixed price",
        ),
        "settlement.settlementPeriodHours": Rule(
            (("server", "settlement", "period_hours"), ("signer", "policy", "settlement_period_hours")),
            "payments end so long before the expiry, too; at least 4 on network live",
        ),
        "settlement.signingService.host": Rule((), SOCKETS),
        "settlement.signingService.port": Rule((), SOCKETS),
        "chanStore.host": Rule((), SOCKETS),
        "chanStore.port": Rule((), SOCKETS),
    },
    "store": {
        "storage.stateDir": Rule((), "no counterpart: its files are of another form; settle its channels with the old programs"),
        "network.host": Rule((), SOCKETS),
        "network.port": Rule((), SOCKETS),
        "bitcoin.network": Rule((("store", "", "network"),)),
    },
    "signer": {
        "bitcoin.network": Rule((("signer", "", "network"),)),
        "network.host": Rule((), SOCKETS),
        "network.port": Rule((), SOCKETS),
        "settlement.privKeySeed": Rule((), KEY),
        "settlement.fundsDestinationAddress": Rule((("signer", "policy", "funds_destination_address"),)),
    },
}

MARKS = {"server": ("open", "chanStore"), "store": ("storage",), "signer": ("settlement.privKeySeed", "settlement.funds")}
"""What keys of each kind of file begin with, and of no other kind."""


def kind_of(entries: list[Entry]) -> str:
    """Return which process a file is for. Raises SeedError if none can be told."""
    found = [kind for kind, begins in MARKS.items() if any(entry.key.startswith(begins) for entry in entries)]
    if len(found) != 1:
        raise SeedError("is not one of the server's, the store's or the signer's (signing.cfg) of 2016")
    return found[0]


def convert(entries: list[Entry]) -> Imported:
    """Return what a file's entries are in our configuration. Raises SeedError."""
    made = Imported(kind_of(entries))
    made.notes = [Note(entry.line, entry.key, _take(made, entry)) for entry in entries]
    return made


def _take(made: Imported, entry: Entry) -> str:
    """Take a value over, if it has a place; return what became of it."""
    rule = RULES[made.kind].get(entry.key)
    if rule is None:
        return "no counterpart: import that file by itself" if entry.key == "import" else "no counterpart: unknown here"
    if not rule.targets:
        return rule.about
    if isinstance(entry.value, str) and "$(" in entry.value:
        return "not taken over: variables are not read; write the value"
    names = []
    for file, table, key in rule.targets:
        if file == made.kind:
            made.values[table, key] = entry.value
        elsewhere = "" if file == made.kind else " (set it there)"
        names.append(f"{file}.toml: {'.'.join(part for part in (table, key) if part)}{elsewhere}")
    return "; ".join(part for part in (", ".join(names), rule.about) if part)
