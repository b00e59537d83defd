"""Aim: two systems in one run share nothing that each must have for itself. Method: copies of a configuration that differ in all,
then in all but one thing."""

import shutil

import pytest

from paychan.instances import read_instances
from paychan.settings.instances import trouble_with_names
from tests.system import ROOT


def directory(place, name, port, base, **changes):
    """Make a configuration with a state directory and ports of its own."""
    made = place / name
    shutil.copytree(ROOT / "config" / "debug", made)
    for file in made.glob("*.toml"):
        text = file.read_text().replace('state_dir = "state/debug"', f'state_dir = "{place}/state/{name}"')
        if file.name == "server.toml":
            text = text.replace("port = 8000", f"port = {port}").replace("base_port = 8001", f"base_port = {base}")
        for old, new in changes.items():
            text = text.replace(old, new)
        file.write_text(text)
    (place / "state" / name).mkdir(parents=True, exist_ok=True)
    return made


def together(*directories):
    return read_instances(directories)[2]


def test_what_differs_in_all_may_run_together(tmp_path):
    assert together(directory(tmp_path, "one", 9000, 9001), directory(tmp_path, "two", 9100, 9101)) == []


@pytest.mark.parametrize(
    ("port", "base", "key"),
    [(9000, 9101, "http.port"), (9100, 9001, "direct.base_port"), (9001, 9101, "direct.base_port"), (9100, 9000, "http.port")],
)
def test_ports_are_told_apart_also_the_workers_own(tmp_path, port, base, key):
    one, two = directory(tmp_path, "one", 9000, 9001), directory(tmp_path, "two", port, base)
    found = together(one, two)
    assert found and all(line.startswith("one and two share port 900") and key in line for line in found)


def test_a_state_directory_is_for_one_and_its_sockets_too(tmp_path):
    one = directory(tmp_path, "one", 9000, 9001)
    two = directory(tmp_path, "two", 9100, 9101, **{f"{tmp_path}/state/two": f"{tmp_path}/state/one"})
    kinds = [line.partition("share ")[2].split(" /")[0] for line in together(one, two)]
    assert kinds == ["the state directory", "socket", "socket", "socket", "the key"]


def test_one_key_in_two_files_is_found(tmp_path):
    one, two = directory(tmp_path, "one", 9000, 9001), directory(tmp_path, "two", 9100, 9101)
    for name in ("one", "two"):
        (tmp_path / "state" / name / "signer.key").write_text("11" * 32 + "\n")
    (found,) = together(one, two)
    assert found.startswith("one and two have the same key in two files")
    (tmp_path / "state" / "two" / "signer.key").write_text("22" * 32 + "\n")
    assert together(one, two) == []


def test_what_holds_for_all_of_them_is_refused(tmp_path, monkeypatch):
    one, two = directory(tmp_path, "one", 9000, 9001), directory(tmp_path, "two", 9100, 9101)
    monkeypatch.setenv("PORT", "9000")
    assert any(line.startswith("PORT: is set") for line in together(one, two))


def test_names_can_be_told_apart(tmp_path):
    assert trouble_with_names([tmp_path / "a" / "live", tmp_path / "b" / "test"]) == []
    assert len(trouble_with_names([tmp_path / "a" / "live", tmp_path / "b" / "live"])) == 1
    assert len(trouble_with_names([tmp_path / "a b", tmp_path / "c"])) == 1
