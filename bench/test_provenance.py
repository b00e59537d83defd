"""Aim: a result names the commit that was measured, truly, and which way granian's requests came in. Method: small checkouts."""

import os
import subprocess

import pytest

from bench.load.provenance import NOT_TOLD, UNKNOWN, commit, granian_door
from tests.system import ROOT


@pytest.fixture
def checkout(tmp_path):
    """A checkout with one commit, in a path with a blank."""
    root = tmp_path / "a checkout"
    root.mkdir()
    (root / "file").write_text("1\n")
    run(root, "init", "--quiet")
    run(root, "add", "file")
    run(root, "-c", "user.name=n", "-c", "user.email=e@localhost", "commit", "--quiet", "-m", "first")
    return root


def run(root, *arguments):
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(["git", *arguments], cwd=root, env=env, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_and_whether_the_tree_differs_from_it(checkout):
    head = run(checkout, "rev-parse", "HEAD")[:12]
    assert commit(checkout) == head
    (checkout / "stray").write_text("")  # as results are
    assert commit(checkout) == head
    (checkout / "file").write_text("2\n")
    assert commit(checkout) == f"{head}+dirty"
    run(checkout, "tag", "v9")
    run(checkout, "checkout", "--quiet", "file")
    assert commit(checkout) == head


def test_another_repository_is_not_taken_for_ours(checkout, monkeypatch, tmp_path):
    """As git's hooks name theirs in the environment; and an unpacked archive may lie within a checkout of something else."""
    inner = checkout / "unpacked"
    inner.mkdir()
    assert commit(inner) == UNKNOWN
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))
    assert commit(checkout) == run(checkout, "rev-parse", "HEAD")[:12]


def test_a_worktree_is_a_checkout(checkout):
    run(checkout, "worktree", "add", "--quiet", "-b", "other", "../other")
    assert commit(checkout.parent / "other") == run(checkout, "rev-parse", "HEAD")[:12]


def test_without_git_the_commit_is_unknown(monkeypatch, checkout):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert commit(checkout) == UNKNOWN


@pytest.mark.privileged("gives a checkout to another user")
def test_a_checkout_of_another_user_is_read(checkout):
    for path in [checkout, *checkout.rglob("*")]:
        os.chown(path, 12345, 12345, follow_symlinks=False)
    assert len(commit(checkout)) == 12


@pytest.mark.parametrize(
    ("readyz", "way"),
    [
        ({"granian_door": "own"}, "own"),
        ({"granian_door": "public: why"}, "public: why"),
        ({}, NOT_TOLD),
        ({"granian_door": 1}, NOT_TOLD),
    ],
)
def test_the_door_is_what_readyz_says(readyz, way):
    assert granian_door(readyz) == way


def test_git_ignores_all_results_but_the_published_one(checkout):
    if not (ROOT / ".gitignore").exists():
        pytest.skip("a source package has no .gitignore")
    (checkout / ".gitignore").write_bytes((ROOT / ".gitignore").read_bytes())
    names = ["0123456789ab+dirty-20260101T000000Z.json", "latest.md", "latest-latency.png", "published.json", "published.md"]
    paths = [f"bench/results/{name}" for name in names]
    assert run(checkout, "check-ignore", *paths).split() == paths[:3]
