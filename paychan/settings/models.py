"""What the three processes' configurations hold, as frozen objects. `load.py` reads and checks them."""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from ..core.fees import FeeBounds, settlement_price
from ..core.network import Network
from ..core.settlement import SETTLEMENT_SIZE_MAX
from ..core.units import SECONDS_PER_HOUR
from ..logs import LogConfig
from ..rpc.connection import Address
from ..rpc.peer_tls import CertificateFiles
from .limits import LimitsConfig

SETTLEMENT_BYTES = 331
"""Bytes of a settlement transaction as v1 counts them for the open price (spec section 7). A real one has up to 348."""


@dataclass(frozen=True)
class Users:
    """User ids of the three processes, where each has a user of its own; None: all have the same."""

    server: int | None = None
    store: int | None = None
    signer: int | None = None


@dataclass(frozen=True)
class Common:
    """What all three configurations have. `debug`: no real money, see each process for what it waives."""

    source: str
    network: Network
    state_dir: Path
    debug: bool
    clock_start: int | None
    users: Users = Users()
    log: LogConfig = LogConfig()


@dataclass(frozen=True)
class ChainConfig:
    """Where the chain is seen. tip_age_max: seconds since the best block's stamp after which the source is not trusted."""

    backend: str
    poll_seconds: int
    tip_age_max: int
    lookups_per_second: int
    fixture_file: Path | None
    bitcoind_host: str
    bitcoind_port: int
    bitcoind_cookie_file: Path | None
    bitcoind_user: str
    bitcoind_password_file: Path | None
    bitcoind_wallet: str
    bitcoind_watched_max: int
    esplora_urls: tuple[str, ...]
    esplora_agree: int

    @property
    def has_network(self) -> bool:
        """Whether asking the source costs somebody something."""
        return self.backend in ("bitcoind", "esplora")


@dataclass(frozen=True)
class SellConfig:
    """Where sellers ask, if anywhere. socket: absolute; host: an IP address; port 0: none. With certificate and key: TLS."""

    socket: Path | None
    host: str
    port: int
    tls_certificate: Path | None
    tls_key: Path | None
    tokens_file: Path

    @property
    def is_on(self) -> bool:
        """Whether anything is listened at."""
        return self.socket is not None or bool(self.port)


@dataclass(frozen=True)
class MetricsConfig:
    """Where Prometheus asks, if anywhere. socket: absolute; host: an IP address; port 0: none."""

    socket: Path | None = None
    host: str = ""
    port: int = 0

    @property
    def is_on(self) -> bool:
        """Whether anything is listened at."""
        return self.socket is not None or bool(self.port)


@dataclass(frozen=True)
class OperatorConfig:
    """Where the operator's API and page are asked for, if anywhere. socket: absolute; host: an IP address; port 0: none. With
    certificate and key: TLS."""

    socket: Path | None = None
    host: str = ""
    port: int = 0
    certificate: Path | None = None
    key: Path | None = None
    tokens_file: Path = Path()

    @property
    def is_on(self) -> bool:
        """Whether anything is listened at."""
        return self.socket is not None or bool(self.port)


@dataclass(frozen=True)
class WebhooksConfig:
    """allowed: networks that endpoints may be in besides the public one. Seconds: after which an endpoint that takes nothing is
    disabled; in which it must answer; of which sales are summed up."""

    allowed: tuple[IPv4Network | IPv6Network, ...] = ()
    give_up_seconds: int = 7 * 86400
    answer_seconds: int = 15
    sales_seconds: int = 3600


@dataclass(frozen=True)
class ClusterConfig:
    """A machine among those that share one store. machine: its name; peer_host: the name or IP address that others connect to, also
    in its certificate; peer_port: the first of its workers' ports; listen_host: an IP address. certificate_ends: unix seconds."""

    machine: str
    peer_host: str
    peer_port: int
    listen_host: str
    files: CertificateFiles
    certificate_ends: int


@dataclass(frozen=True)
class ServerConfig:
    """`paychan-server`: money in satoshi, times in seconds. http_host: an IP address; direct_public_host: as it stands in a URL."""

    common: Common
    http_host: str
    http_port: int
    workers: int
    public_url: str
    direct_base_port: int
    direct_public_host: str
    store: Address
    signer: Address
    chain: ChainConfig
    price_is_settlement: bool
    base_price: int
    price_add_settlement_fee: bool
    funding_tx_min_conf: int
    confirmations_from: tuple[tuple[int, int], ...]
    funding_value_max: int
    duration_min: int
    duration_max: int
    settlement_period_hours: int
    fee_per_byte: int
    fee_bounds: FeeBounds
    settlement_confirmations: int
    channel_exposure_max: int
    total_exposure_max: int
    unsettled_value_max: int
    unnoted_value_max: int
    sell: SellConfig
    cluster: ClusterConfig | None = None
    metrics: MetricsConfig = MetricsConfig()
    limits: LimitsConfig = LimitsConfig()
    operator: OperatorConfig = OperatorConfig()
    webhooks: WebhooksConfig = WebhooksConfig()
    expiring_notice: int = 86400

    @property
    def settlement_period(self) -> int:
        """Seconds before expiry from which on no payment is taken and the channel is settled."""
        return self.settlement_period_hours * SECONDS_PER_HOUR

    def confirmations_needed(self, funding_value: int) -> int:
        """How many blocks must confirm a funding output of so many satoshi: the most that any row at or below it asks."""
        rows = (confirmations for value, confirmations in self.confirmations_from if funding_value >= value)
        return max(self.funding_tx_min_conf, *rows, 0)

    @property
    def open_price(self) -> int:
        """The least value of an opening payment (spec section 7); as far as it is the settlement's, without an estimate."""
        if self.price_is_settlement:
            return self.base_price + settlement_price(self.fee_per_byte, self.fee_bounds, SETTLEMENT_SIZE_MAX)
        return self.base_price + (SETTLEMENT_BYTES * self.fee_per_byte if self.price_add_settlement_fee else 0)


@dataclass(frozen=True)
class DatabaseConfig:
    """A PostgreSQL database. hosts: of every machine that may have it, host name, address or directory of a Unix socket, and port.
    role: who we are there. ca_file None: no TLS."""

    hosts: tuple[tuple[str, int], ...]
    database: str
    role: str
    ca_file: Path | None
    certificate_file: Path | None
    key_file: Path | None


@dataclass(frozen=True)
class PostgresConfig(DatabaseConfig):
    """One that keeps a store's data instead of an embedded engine. name: of this store among those of the cluster."""

    name: str
    lease_ms: int


@dataclass(frozen=True)
class EventsConfig:
    """What is told, and for how long it is kept: at most `seconds` and `count`; what an enabled webhook has not delivered
    `undelivered_seconds`. channel_value: satoshi received on a channel from which on it is told; None: never."""

    seconds: int = 30 * 86400
    count: int = 1_000_000
    undelivered_seconds: int = 90 * 86400
    channel_value: int | None = None


@dataclass(frozen=True)
class StoreConfig:
    """`paychan-store`. `server_pubkey`: 33 bytes, or None: read from `server_pubkey_file`, which the signer writes. `postgres`:
    None if the data is in `state_dir`."""

    common: Common
    address: Address
    shard_count: int
    lease_ms: int
    server_pubkey: bytes | None
    server_pubkey_file: Path
    postgres: PostgresConfig | None = None
    events: EventsConfig = EventsConfig()


@dataclass(frozen=True)
class SignerConfig:
    """`paychan-signer`: its policy. Money in satoshi, the settlement period in seconds. `postgres`: None if what was signed is
    remembered in `state_dir` alone."""

    common: Common
    address: Address
    key_file: Path
    public_key_file: Path
    destination_script: bytes
    fee_per_byte_max: int
    fee_share_percent_max: int
    versions_max: int
    settlement_period: int
    fee_sum_per_day_max: int
    waive_funding_proof: bool
    hardening_required: bool
    postgres: DatabaseConfig | None = None
