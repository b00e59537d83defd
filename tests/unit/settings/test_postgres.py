"""Aim: the table `postgres` of store.toml is read as it is written, and what cannot or must not work is named with its key."""

import pytest

from paychan.core.errors import ConfigError
from paychan.settings.load import load_signer_config, load_store_config

TOML = 'network = "test"\nstate_dir = "state"\n[debug]\nenable = true\n[store]\naddress = "unix:run/store.sock"\n'


def load(tmp_path, table):
    (tmp_path / "store.toml").write_text(TOML + table)
    return load_store_config(tmp_path / "store.toml", {}).postgres


def test_without_the_table_the_store_is_embedded(tmp_path):
    assert load(tmp_path, "") is None


def test_hosts_are_names_addresses_and_directories_of_sockets(tmp_path):
    hosts = '["127.0.0.1", "[::1]:6000", "/run/postgresql", "/run/postgresql:5433"]'
    found = load(tmp_path, f'[postgres]\nhosts = {hosts}\nname = "a"')
    assert found.hosts == (("127.0.0.1", 5432), ("::1", 6000), ("/run/postgresql", 5432), ("/run/postgresql", 5433))
    assert (found.database, found.role, found.name, found.lease_ms, found.ca_file) == (
        "paychan",
        "paychan_store",
        "a",
        30_000,
        None,
    )
    far = load(
        tmp_path,
        '[postgres]\nhosts = ["n1.example", "10.0.0.2:1"]\nname = "a"\nca_file = "/ca"\ncertificate_file = "/c"\nkey_file = "/k"',
    )
    assert far.hosts == (("n1.example", 5432), ("10.0.0.2", 1)) and str(far.key_file) == "/k"


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ('name = "a"', "postgres.hosts: is missing"),
        ('hosts = []\nname = "a"', "postgres.hosts: names no machine"),
        ('hosts = ["127.0.0.1"]', "postgres.name: is missing"),
        ('hosts = ["127.0.0.1"]\nname = "A"', "postgres.name: must be small letters"),
        ('hosts = ["127.0.0.1"]\nname = "a"\nrole = "a; DROP"', "postgres.role: must be small letters"),
        ('hosts = ["127.0.0.1"]\nname = "a"\ndatabase = ""', "postgres.database: is empty"),
        ('hosts = ["127.0.0.1"]\nname = "a"\nlease_ms = 999', "postgres.lease_ms: must be from 1000"),
        ('hosts = ["127.0.0.1", "127.0.0.1:5432"]\nname = "a"', "postgres.hosts: names a machine twice"),
        ('hosts = ["10.0.0.1"]\nname = "a"', "postgres.ca_file: is missing: 10.0.0.1 is another machine"),
        ('hosts = ["127.0.0.1"]\nname = "a"\ncertificate_file = "/c"\nkey_file = "/k"', "postgres.ca_file: is missing"),
        ('hosts = ["127.0.0.1"]\nname = "a"\nca_file = "/ca"\nkey_file = "/k"', "postgres.certificate_file: needs key_file"),
        ('hosts = ["postgres://127.0.0.1"]\nname = "a"', "postgres.hosts: "),
        ('hosts = ["127.0.0.1:0"]\nname = "a"', "postgres.hosts: 127.0.0.1:0 is not HOST"),
        ('hosts = ["127.0.0.1:65536"]\nname = "a"', "postgres.hosts: 127.0.0.1:65536 is not HOST"),
        ('hosts = ["a b"]\nname = "a"\nca_file = "/ca"', "postgres.hosts: "),
        ('hosts = ["127.0.0.1"]\nname = "a"\npassword = "x"', "postgres.password: is unknown"),
    ],
)
def test_what_cannot_work_is_named(tmp_path, table, key):
    with pytest.raises(ConfigError, match=key.replace(".", "\\.")):
        load(tmp_path, f"[postgres]\n{table}")


def test_with_real_money_a_store_is_not_taken_over_while_its_workers_may_still_answer(tmp_path):
    lease = "[postgres]\nhosts = ['127.0.0.1']\nname = 'a'\nlease_ms = "
    text = f'network = "live"\nstate_dir = "{tmp_path}"\n{TOML[TOML.index("[store]") :]}'
    for lease_ms, is_taken in ((5999, False), (6000, True)):
        (tmp_path / "store.toml").write_text(f"{text}{lease}{lease_ms}\n")
        if is_taken:
            assert load_store_config(tmp_path / "store.toml", {}).postgres.lease_ms == lease_ms
        else:
            with pytest.raises(ConfigError, match=r"postgres\.lease_ms: must be twice"):
                load_store_config(tmp_path / "store.toml", {})
    assert load(tmp_path, f"{lease}5999\n").lease_ms == 5999


def test_a_signer_has_the_same_table_with_a_role_of_its_own(tmp_path):
    policy = '[policy]\nfunds_destination_address = "mm9mm96b8bZRBacaAvY5MEeDd6HW46qFcY"\n'
    policy += "fee_per_byte_max = 1\nfee_share_percent_max = 1\n"
    text = TOML.replace("[store]", "[signer]").replace("store.sock", "signer.sock") + policy
    (tmp_path / "signer.toml").write_text(text)
    assert load_signer_config(tmp_path / "signer.toml", {}).postgres is None
    (tmp_path / "signer.toml").write_text(f'{text}[postgres]\nhosts = ["127.0.0.1"]\n')
    found = load_signer_config(tmp_path / "signer.toml", {}).postgres
    assert (found.hosts, found.database, found.role) == ((("127.0.0.1", 5432),), "paychan", "paychan_signer")
    (tmp_path / "signer.toml").write_text(f'{text}[postgres]\nhosts = ["127.0.0.1"]\nname = "a"\n')
    with pytest.raises(ConfigError, match=r"postgres\.name"):
        load_signer_config(tmp_path / "signer.toml", {})
