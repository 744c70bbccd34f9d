"""The documents cannot rot: they name every variable, command, field and file that exists."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from benchmarks import scale
from mirror_assets import configuration
from mirror_assets.cli import main
from mirror_assets.mirroring.catalog import (
    BackupRule,
    BadRecords,
    DatabaseEntry,
    Pods,
    RefreshRule,
    Retention,
    TableEntry,
)

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


def test_the_readme_lists_exactly_the_variables_there_are() -> None:
    assert configuration.with_table(README) == README, "python -m mirror_assets.configuration"


def test_the_example_of_an_environment_is_the_codes() -> None:
    assert (ROOT / ".env.example").read_text() == configuration.example()


def test_the_readme_lists_every_command() -> None:
    assert isinstance(main, click.Group)
    for name in main.commands:
        assert f"| `mirror {name}" in README


@pytest.mark.parametrize(
    "model", [DatabaseEntry, BackupRule, RefreshRule, Retention, Pods, TableEntry, BadRecords]
)
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


def test_scale_on_paper_is_what_its_units_give() -> None:
    assert (ROOT / "docs/scale.md").read_text() == scale.page(), "python -m benchmarks.scale"
