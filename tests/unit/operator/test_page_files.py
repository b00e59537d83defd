"""Aim: the page can run and load nothing but its own files, whatever text reaches it. Method: its headers, and its files read as
text; clients/js/test/live/operator.test.js looks at the same in a browser."""

import re
from pathlib import Path

import pytest

from paychan.operator.views import page

DIRECTORY = Path(page.__file__).parent.parent / "page"
FILES = sorted(path for path in DIRECTORY.iterdir() if path.is_file())
SCRIPTS = [path for path in FILES if path.suffix == ".js"]
MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|setHTML|document\.write|DOMParser|createContextualFragment|srcdoc"
    r"|\beval\b|new Function|javascript:"
)


def test_every_file_is_served_and_names_what_it_is():
    assert set(page.FILES) == {path.name for path in FILES}
    kinds = {name: dict(answer.headers)["content-type"].partition(";")[0] for name, answer in page.FILES.items()}
    assert set(kinds.values()) == {"text/html", "text/css", "text/javascript", "image/svg+xml"}


@pytest.mark.parametrize("name", page.FILES)
def test_every_file_comes_with_a_policy_that_allows_nothing_but_our_own_files(name):
    headers = dict(page.FILES[name].headers)
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    allowed = {source for name, source in policy.items() if name.endswith("-src")}
    assert allowed == {"'none'", "'self'"}
    for name in ("base-uri", "form-action", "frame-ancestors", "trusted-types"):
        assert policy[name] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_makes_text_into_markup(path):
    assert not MARKUP.search(path.read_text())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_names_another_host(path):
    text = path.read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//[a-z0-9-]+\.[a-z]|url\(|@import", text)


def test_the_document_has_no_script_or_style_of_its_own():
    text = (DIRECTORY / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", text)
    for path in SCRIPTS:
        assert not re.search(r"setAttribute\(\"style\"|[\s{,]style: ", path.read_text()), path.name


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_import_is_a_file_that_is_served(path):
    for name in re.findall(r'from "\./([^"]+)"', path.read_text()):
        assert name in page.FILES
