"""One mapping from source names to asset keys, folders and warehouse names, without meetings."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror_assets.mirroring import names
from mirror_assets.mirroring.errors import CatalogError


@given(st.text(min_size=1, max_size=64))
def test_an_asset_name_is_letters_digits_and_underscores(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_]+", names.asset_name(name))


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=64))
def test_a_folder_name_is_one_safe_component_and_reversible(name: str) -> None:
    folder = names.folder_name(name)
    assert not set(folder) & set("/\\*?[]\0.:= ")
    if len(folder) < 180:  # longer ones are cut, with a hash
        assert unquote(folder) == name


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=64))
def test_a_warehouse_name_is_what_bigquery_takes(name: str) -> None:
    assert re.fullmatch(r"[\w \-]+", names.warehouse_name(name))


def test_a_plain_name_is_the_same_everywhere() -> None:
    for mapping in (names.asset_name, names.folder_name, names.warehouse_name):
        assert mapping("visit_note") == "visit_note"


def test_quoting_doubles_quotes() -> None:
    assert names.sql('a"b') == '"a""b"'
    assert names.literal("a'b") == "'a''b'"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("visit_note", "Visit_Note"),
        ("visit note", "visit_note"),
        ("visit.note", "visit/note"),
        ("é", "è"),
        ("note", "note_latest"),
        ("Note", "note_LATEST"),
        ("note", "note_depr_1"),
        ("note", "note_20260310"),
    ],
)
def test_names_that_would_meet_are_refused_naming_both(first: str, second: str) -> None:
    for pair in ((first, second), (second, first)):
        with pytest.raises(CatalogError) as caught:
            names.check_tables("clinic", pair)
        assert all(repr(name) in caught.value.what for name in pair)
        assert caught.value.where == "catalog clinic"


@pytest.mark.parametrize(
    "reserved", ["MIRROR_METADATA", "mirror_errors", "_PARTITIONDATE", "_partitiontime"]
)
def test_the_mirrors_own_names_are_refused(reserved: str) -> None:
    with pytest.raises(CatalogError, match="reserved"):
        names.check_tables("clinic", [reserved])


def test_names_that_only_look_alike_are_allowed() -> None:
    names.check_tables("clinic", ["note_latest", "notes", "a_20260310", "mirrors", "depr_1", "b"])


@pytest.mark.parametrize("pair", [("a", "A"), ("a.b", "a/b"), ("x'y", 'x"y')])
def test_columns_that_would_meet_are_refused_naming_both(pair: tuple[str, str]) -> None:
    with pytest.raises(CatalogError) as caught:
        names.check_columns("clinic/t", pair)
    assert all(repr(name) in caught.value.what for name in pair)
    assert caught.value.where == "clinic/t"


def test_a_reserved_column_is_refused_and_others_are_not() -> None:
    with pytest.raises(CatalogError, match="_PARTITIONDATE"):
        names.check_columns("clinic/t", ["id", "_PARTITIONDATE"])
    names.check_columns("clinic/t", ["id", "partition", "a b", "a_b"])


def test_a_long_foreign_name_still_fits_a_file_name() -> None:
    names_ = ["é" * 64, "é" * 63 + "è"]
    folders = {names.folder_name(name) for name in names_}
    assert len(folders) == 2
    assert all(len(folder) <= 180 for folder in folders)
