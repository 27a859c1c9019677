"""What the browser is given: vendored files as they were published, and no way to read text as markup."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

import pytest

from app.web.shell import STATIC

OWN = sorted(path for path in STATIC.rglob("*") if path.is_file() and "vendor" not in path.parts)
SCRIPTS = [path for path in OWN if path.suffix == ".js"]


def named(path: Path) -> str:
    return str(path.relative_to(STATIC))


def test_vendored_files_are_the_published_ones_with_their_licence() -> None:
    lines = (STATIC / "vendor" / "SHA256.txt").read_text().splitlines()
    told = {name: digest for digest, name in (line.split() for line in lines[1:])}
    held = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (STATIC / "vendor").iterdir()}
    assert told == {name: digest for name, digest in held.items() if name != "SHA256.txt"}
    assert set(told) == {"uPlot.iife.min.js", "uPlot.min.css", "uPlot.LICENSE"}


@pytest.mark.parametrize("path", SCRIPTS, ids=named)
def test_no_script_can_read_text_as_markup_or_as_code(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = re.findall(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|srcdoc"
        r"|\beval\b|new Function|setAttribute\(\s*[\"']on|javascript:",
        text,
    )
    assert found == []


@pytest.mark.parametrize("path", OWN, ids=named)
def test_nothing_is_loaded_from_another_host_and_nothing_is_inline(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"https?://|@import|url\(", text) == []
    if path.suffix == ".html":
        assert re.findall(r"<style|\sstyle=|\son\w+=", text) == []
        assert re.findall(r"<script(?![^>]*\bsrc=)", text) == []


def test_an_installation_carries_every_file() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["app"]
    root = STATIC.parents[1]
    carried = {path for pattern in patterns for path in root.glob(pattern)}
    assert {path for path in STATIC.rglob("*") if path.is_file()} <= carried
