"""The documents cannot rot: they name every variable, command, field and file that exists."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from mirror_assets.cli import main
from mirror_assets.commons import cache_settings
from mirror_assets.elation import firewall
from mirror_assets.mirroring.catalog import (
    BadRecords,
    DatabaseEntry,
    RefreshRule,
    Retention,
    TableEntry,
)
from mirror_assets.settings import VARIABLES as OWN

VARIABLES = OWN | firewall.VARIABLES | cache_settings.VARIABLES
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


@pytest.mark.parametrize("name", VARIABLES)
def test_the_readme_lists_every_variable_with_its_default(name: str) -> None:
    default, meaning = VARIABLES[name]
    shown = f"`{default}`" if default else ""
    assert f"| `{name}` | {shown} | {meaning} |" in README


def test_the_readme_lists_no_variable_that_is_gone() -> None:
    table = README.split("<!-- settings")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `([^`]+)`", table, re.M)) == set(VARIABLES)


def test_the_readme_lists_every_command() -> None:
    assert isinstance(main, click.Group)
    for name in main.commands:
        assert f"| `mirror {name}" in README


@pytest.mark.parametrize("model", [DatabaseEntry, RefreshRule, Retention, TableEntry, BadRecords])
def test_the_catalog_reference_names_every_field(model: type) -> None:
    text = (ROOT / "docs/catalog.md").read_text()
    for name, field in model.model_fields.items():  # type: ignore[attr-defined]
        assert re.search(rf"[`{{ ,]{field.alias or name}[`}},]", text), name


def test_the_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(
        re.findall(r"`?make ([a-z-]+)`?", README + (ROOT / "CONTRIBUTING.md").read_text())
    ):
        assert re.search(rf"^{target}:", makefile, re.M), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_lock_files_hold_hashes_and_no_addresses() -> None:
    for name in ("requirements.lock", "requirements-fast.lock", "requirements-bench.lock"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        pinned = re.findall(r"^\S+==\S+", text, re.M)
        assert pinned
        assert text.count("--hash=sha256:") >= len(pinned)
