"""MySQL text in every character set: exact in UTF-8, or its row is rejected by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.conftest import small_packets

if TYPE_CHECKING:
    from tests.conftest import Bench

_ALLOWED = {"rows": 1_000_000, "reason": "undefined on purpose", "until": "2999-01-01"}
#: Bytes to try as a character, beyond each single one: lead bytes, trail bytes.
_PAIRS = {
    "big5": (range(0x81, 0xFF), range(0x40, 0xFF)),
    "cp932": (range(0x81, 0xFD), range(0x40, 0xFD)),
    "euckr": (range(0x81, 0xFF), range(0x41, 0xFF)),
    "gb2312": (range(0xA1, 0xF8), range(0xA1, 0xFF)),
    "gbk": (range(0x81, 0xFF), range(0x40, 0xFF)),
    "sjis": (range(0x81, 0xFD), range(0x40, 0xFD)),
    "eucjpms": (range(0x8E, 0xFF), range(0xA1, 0xFF)),
    "ujis": (range(0x8E, 0xFF), range(0xA1, 0xFF)),
    "gb18030": (range(0x81, 0xFF), range(0x40, 0xFF)),
}
_WIDE = {
    "ucs2": "utf_16_be",
    "utf16": "utf_16_be",
    "utf16le": "utf_16_le",
    "utf32": "utf_32_be",
    "utf8mb3": "utf_8",
    "utf8mb4": "utf_8",
}
_SAMPLE = "\0\t\n\r\x1a\"'\\,?%aé߿ࠀ\u2028\ud7ff\ue000\ufeff\ufffd\uffff"
_ASTRAL = "😀𐀀\U0010ffff"


def _candidates(charset: str, width: int) -> Iterator[bytes]:
    """Byte strings that may be a character."""
    if charset in _WIDE:
        characters = _SAMPLE if charset in ("ucs2", "utf8mb3") else _SAMPLE + _ASTRAL
        yield from (character.encode(_WIDE[charset]) for character in characters)
        return
    yield from (bytes([byte]) for byte in range(256))
    if width > 1:
        leads, trails = _PAIRS[charset]
        yield from (bytes([lead, trail]) for lead in leads for trail in trails[lead % 3 :: 3])
    if width == 3:
        yield from (bytes([0x8F, a, b]) for a in range(0xA1, 0xFF) for b in range(0xA1, 0xFF, 7))


def _fill(bench: Bench, charset: str, width: int) -> None:
    """A table of all strings that the server takes for one character of the set."""
    strings = list(_candidates(charset, width))
    with closing(bench.server.admin(bench.schema)) as admin, admin.cursor() as cursor:
        cursor.execute("SET sql_mode = ''")
        cursor.execute("CREATE TEMPORARY TABLE raw (i int PRIMARY KEY, b varbinary(8))")
        cursor.executemany("INSERT INTO raw VALUES (%s, %s)", list(enumerate(strings)))
        cursor.execute(
            f"CREATE TABLE {charset} (id int PRIMARY KEY, v varchar(20) CHARACTER SET {charset},"
            f" w text CHARACTER SET {charset})"
        )
        converted = f"CONVERT(b USING {charset})"
        cursor.execute(
            f"INSERT IGNORE INTO {charset} SELECT i, {converted}, CONCAT('? ', {converted}, ' ?')"
            f" FROM raw WHERE {converted} IS NOT NULL AND CAST({converted} AS BINARY) = b"
        )
        cursor.execute("DROP TABLE raw")


def _as_told(bench: Bench, charset: str) -> dict[int, tuple[str, str, bool]]:
    """By id: both values in UTF-8 by the server's own function, and whether it had to guess."""
    own = "CAST(v AS BINARY) NOT IN (X'3F', X'003F', X'3F00', X'0000003F')"
    guessed = f"CAST(CONVERT(v USING utf8mb4) AS BINARY) IN (X'3F', X'EFBFBD') AND {own}"
    if charset in _WIDE:
        guessed = "0"
    rows = bench.ask(
        f"SELECT id, CONVERT(v USING utf8mb4), CONVERT(w USING utf8mb4), {guessed} FROM {charset}"
    )
    return {number: (v, w, bool(lost)) for number, v, w, lost in rows}


def test_every_character_of_every_set_is_exact_or_rejected(bench: Bench) -> None:
    sets = [
        (name, width)
        for name, width in bench.ask(
            "SELECT CHARACTER_SET_NAME, MAXLEN FROM information_schema.CHARACTER_SETS"
        )
        if name != "binary"  # has no text
    ]
    assert len(sets) >= 36
    for name, width in sets:
        _fill(bench, name, width)
    entry = {"bad_records_allowed": _ALLOWED}
    reports = bench.mirror_day(bench.catalog({name: entry for name, _width in sets}))
    lossy = set()
    for name, _width in sets:
        told = _as_told(bench, name)
        assert len(told) >= 20, name
        report = reports[name]
        assert report.error is None
        assert report.source_rows == len(told) == report.loaded + report.rejected
        loaded = bench.rows(f"{name}_latest")
        assert loaded == [(i, v, w) for i, (v, w, lost) in sorted(told.items()) if not lost], name
        bad = [i for i, (_v, _w, lost) in told.items() if lost]
        assert report.rejected == len(bad), name
        if bad:
            lossy.add(name)
            assert report.reject_kinds == {"v: invalid_encoding": len(bad)}
    assert lossy >= {"ascii", "cp1250", "cp1251", "greek", "hebrew", "tis620", "gbk", "euckr"}
    assert not lossy & {*_WIDE, "latin1", "latin2", "cp852", "koi8r"}


def test_a_rejected_text_is_named_by_its_key_and_others_stay(bench: Bench) -> None:
    bench.run(
        "CREATE TABLE t (id int PRIMARY KEY, v varchar(20) CHARACTER SET cp1250 NULL,"
        " e enum('Ž', '?') CHARACTER SET cp1250 NULL) ",
        "INSERT INTO t VALUES (1, 'Žluťoučký? kůň', 'Ž'), (2, _cp1250 X'5A81', NULL),"
        " (3, '?', '?'), (4, NULL, NULL), (5, '', 'Ž')",
    )
    spec = bench.catalog({"t": {"bad_records_allowed": _ALLOWED}})
    assert bench.mirror_day(spec)["t"].rejected == 1
    assert bench.rows("t_latest") == [
        (1, "Žluťoučký? kůň", "Ž"),
        (3, "?", "?"),
        (4, None, None),
        (5, "", "Ž"),
    ]
    ((column, kind, key),) = bench.rows(
        "MIRROR_ERRORS_latest", '"column", kind, row_key', where="row_number IS NOT NULL"
    )
    assert (column, kind, json.loads(key)) == ("v", "invalid_encoding", {"id": "2"})


def test_halves_of_astral_characters_are_rejected(bench: Bench) -> None:
    """ucs2 and utf32 take what is no character; UTF-8 has no form of it."""
    bench.run(
        "CREATE TABLE t (id int PRIMARY KEY, a varchar(9) CHARACTER SET ucs2 NULL,"
        " b varchar(9) CHARACTER SET utf32 NULL)",
        "INSERT INTO t VALUES (1, X'D83DDE00', NULL), (2, NULL, X'0000D800'),"
        " (3, X'FFFF', X'0010FFFF')",
    )
    spec = bench.catalog({"t": {"bad_records_allowed": _ALLOWED}})
    assert bench.mirror_day(spec)["t"].rejected == 2
    assert bench.rows("t_latest") == [(3, "\uffff", "\U0010ffff")]


@pytest.mark.parametrize("driver", ["auto", "pymysql"])
def test_both_drivers_deliver_the_same(bench: Bench, driver: str) -> None:
    bench.run(
        "CREATE TABLE t (id int PRIMARY KEY, v varchar(20) CHARACTER SET greek)",
        "INSERT INTO t VALUES (1, 'αβγ %s ?'), (2, _greek X'FF'), (3, NULL)",
    )
    spec = bench.catalog({"t": {"bad_records_allowed": _ALLOWED}})
    bench.mirror_day(spec, source=bench.source(spec, driver=driver))
    assert bench.exported("t") == b'1,"\xce\xb1\xce\xb2\xce\xb3 %s ?"\n2,"\xff\xff"\n3,\n'


def test_every_collation_delivers_the_same(bench: Bench) -> None:
    """Comparisons that ignore case, accents or trailing spaces must not hide a lost character."""
    found = bench.ask(
        "SELECT DISTINCT a.CHARACTER_SET_NAME, a.FULL_COLLATION_NAME"
        " FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY a"
        " WHERE a.CHARACTER_SET_NAME <> 'binary' ORDER BY 2"
    )
    columns = [f"c{i} varchar(3) CHARACTER SET {c} COLLATE {n}" for i, (c, n) in enumerate(found)]
    assert len(columns) > 200
    chunks = [columns[i : i + 250] for i in range(0, len(columns), 250)]
    for number, chunk in enumerate(chunks):
        bench.run(
            f"CREATE TABLE t{number} (id int, {', '.join(chunk)}) ENGINE=MyISAM",
            f"INSERT INTO t{number} VALUES (1, {', '.join(['%s'] * len(chunk))})".replace(
                "%s", "'a ?'"
            ),
        )
    bench.mirror_day(bench.catalog([f"t{n}" for n in range(len(chunks))]))
    for number, chunk in enumerate(chunks):
        assert bench.rows(f"t{number}_latest") == [(1, *["a ?"] * len(chunk))]


@pytest.mark.parametrize("driver", ["auto", "pymysql"])
def test_texts_too_long_for_the_server_are_exact_or_rejected(bench: Bench, driver: str) -> None:
    """As long as a packet in their own bytes, longer in UTF-8, and with question marks to count."""
    broken = "CONVERT(CONCAT(BINARY REPEAT('a?', 600000), X'5A81') USING cp1250)"
    bench.run(
        "CREATE TABLE t (id int PRIMARY KEY, v longtext CHARACTER SET cp1250,"
        " w varchar(9) CHARACTER SET greek NULL, x longblob)",
        "INSERT INTO t VALUES (1, REPEAT('Žluť?', 300000), 'αβγ?', X'00FF'),"
        " (2, 'short?', '?', NULL), (3, REPEAT('Žluť', 300000), NULL, NULL),"
        f" (4, {broken}, NULL, NULL), (5, NULL, '', NULL),"
        " (6, '?', 'ω', REPEAT(X'00', 2000000))",
    )
    spec = bench.catalog({"t": {"bad_records_allowed": _ALLOWED}})
    with small_packets(bench):
        report = bench.mirror_day(spec, source=bench.source(spec, driver=driver))["t"]
    assert (report.error, report.reject_kinds) == (None, {"v: invalid_encoding": 1})
    wanted = "id, md5(CONVERT(v USING utf8mb4)), CONVERT(w USING utf8mb4), md5(x)"
    assert bench.rows("t_latest", "id, md5(v), w, md5(x)") == bench.ask(
        f"SELECT {wanted} FROM t WHERE id <> 4 ORDER BY id"
    )
