"""What a publication left out or made NULL is accounted for in a proof, and hides nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mirror_assets.mirroring.proof import compare
from tests.mirroring.test_verify import change, prove

if TYPE_CHECKING:
    from mirror_assets.mirroring.catalog import DatabaseSpec
    from mirror_assets.mirroring.proof.verify import Against, TableProof
    from tests.conftest import KindBench

_GOOD, _BAD = "2020-01-01", "9999-12-31"
_REFERENCES: tuple[Against, ...] = ("source", "export")
_NULLS = {"type": "INT64", "misfits": "null"}


def mirrored(bench: KindBench, rejected: int, entry: dict[str, Any]) -> DatabaseSpec:
    """Table ``t`` mirrored, in which dates of the far future are rejects."""
    allowed = {"rows": 100_000, "reason": "dates of the future", "until": "2999-01-01"}
    tables = {"t": {"bad_records_allowed": allowed} | entry}
    spec = bench.catalog(tables, last_date="2262-04-11")
    report = bench.mirror_day(spec)["t"]
    assert (report.published, report.rejected) == (True, rejected)
    return spec


def proofs(bench: KindBench, spec: DatabaseSpec) -> list[TableProof]:
    """The verdicts on ``t`` against the source and against the export."""
    return [prove(bench, spec, against=against)["t"] for against in _REFERENCES]


def test_a_changed_cell_is_found_among_rows_that_share_their_key(any_bench: KindBench) -> None:
    any_bench.run("CREATE TABLE t (a bigint, v {text}, born date)")
    any_bench.insert("t", (1, "x", _GOOD), (1, "y", _GOOD), (2, "z", _BAD), (1, "z", _BAD))
    spec = mirrored(any_bench, 2, {"primary_key": ["a"]})
    assert all(proof.proven for proof in proofs(any_bench, spec))

    for number, value in enumerate("xy", start=1):
        change(any_bench, f"UPDATE clinic_mirror.t SET v = 'new {value}' WHERE v = '{value}'")
        for proof in proofs(any_bench, spec):
            assert not proof.proven
            assert f"{number} rows changed" in proof.faults
            assert {row.key for row in proof.named} == {'{"a": "1"}'}


def test_a_changed_cell_is_found_where_every_key_is_masked(any_bench: KindBench) -> None:
    any_bench.run("CREATE TABLE t (ssn varchar(20) PRIMARY KEY, v {text}, born date)")
    any_bench.insert("t", ("10-1", "x", _GOOD), ("10-2", "y", _GOOD), ("10-3", "z", _BAD))
    spec = mirrored(any_bench, 1, {"masked_columns": ["ssn"]})
    assert [proof.faults for proof in proofs(any_bench, spec)] == [[], []]

    change(any_bench, "UPDATE clinic_mirror.t SET v = 'changed' WHERE v = 'x'")
    for proof in proofs(any_bench, spec):
        assert proof.faults[:2] == [
            "1 rows missing in the warehouse",
            "1 rows only in the warehouse",
        ]
    change(any_bench, "UPDATE clinic_mirror.t SET v = 'too' WHERE v = 'y'")
    for proof in proofs(any_bench, spec):
        assert "2 rows only in the warehouse" in proof.faults


def test_a_masked_part_of_a_key_is_never_shown(any_bench: KindBench) -> None:
    any_bench.run("CREATE TABLE t (id bigint, ssn varchar(20), born date, PRIMARY KEY (id, ssn))")
    any_bench.insert("t", (1, "canary-1", _GOOD), (2, "canary-2", _GOOD), (3, "canary-3", _BAD))
    spec = mirrored(any_bench, 1, {"masked_columns": ["ssn"]})
    assert [proof.faults for proof in proofs(any_bench, spec)] == [[], []]

    change(any_bench, "DELETE FROM clinic_mirror.t WHERE id = 1")
    for proof in proofs(any_bench, spec):
        assert [(row.key, row.how) for row in proof.named] == [
            ('{"id": "1", "ssn": "masked"}', "missing")
        ]
        assert "canary" not in repr(proof)


def test_rejected_rows_are_known_by_keys_of_any_type(any_bench: KindBench) -> None:
    bits = 5 if any_bench.kind == "mysql" else "00000101"
    any_bench.run("CREATE TABLE t (r {real}, b bit(8), born date, PRIMARY KEY (r, b))")
    any_bench.insert("t", (0.1, bits, _BAD), (16777217, bits, _BAD), (2.5, bits, _GOOD))
    spec = mirrored(any_bench, 2, {})
    assert [proof.faults for proof in proofs(any_bench, spec)] == [[], []]


def test_values_made_null_are_accounted_for_without_a_key(any_bench: KindBench) -> None:
    any_bench.run("CREATE TABLE t (word {text}, n {text}, m {text}, born date)")
    rows = [("a", "7", "x"), ("a", "x", "x"), ("a", "x", "x"), ("a", "y", "8"), ("b", "x", "9")]
    any_bench.insert("t", *((*row, _GOOD) for row in rows), ("a", "z", "7", _BAD))
    spec = mirrored(any_bench, 1, {"columns": {"n": _NULLS, "m": _NULLS}})
    assert [proof.faults for proof in proofs(any_bench, spec)] == [[], []]

    change(any_bench, "UPDATE clinic_mirror.t SET n = NULL WHERE n = 7")
    for proof in proofs(any_bench, spec):
        assert proof.faults[0] == "5 values of n are NULL, 4 by policy"
    change(any_bench, "UPDATE clinic_mirror.t SET word = 'c' WHERE m = 9")
    for proof in proofs(any_bench, spec):
        assert "1 rows only in the warehouse" in proof.faults


def _many(bench: KindBench, rejected: int, nulled: int, good: int) -> DatabaseSpec:
    numbers = rejected + nulled + good
    series = {
        "mysql": f"seq_1_to_{numbers}",
        "postgresql": f"generate_series(1, {numbers}) AS numbers(seq)",
    }
    bench.run(
        "CREATE TABLE t (id bigint PRIMARY KEY, n {text}, born date)",
        f"INSERT INTO t SELECT seq, CASE WHEN seq <= {rejected + nulled} THEN 'x' ELSE '7' END,"
        f" CASE WHEN seq <= {rejected} THEN DATE '{_BAD}' ELSE DATE '{_GOOD}' END"
        f" FROM {series[bench.kind]}",
    )
    return mirrored(bench, rejected, {"columns": {"n": _NULLS}})


@pytest.mark.slow
def test_an_account_of_many_rows_is_looked_at_whole(any_bench: KindBench) -> None:
    spec = _many(any_bench, rejected=25_000, nulled=10_500, good=10)
    for proof in proofs(any_bench, spec):
        assert (proof.faults, proof.held_rows, proof.rejected) == ([], 10_510, 25_000)

    change(any_bench, "UPDATE clinic_mirror.t SET n = 8 WHERE id = 35501")
    for proof in proofs(any_bench, spec):
        assert [(row.key, row.columns) for row in proof.named] == [('{"id": "35501"}', ("n",))]


def test_what_differs_beyond_the_account_is_looked_at_a_few_rows_at_a_time(
    any_bench: KindBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit, few in (("MAX_BUCKETS", 20), ("MAX_ROWS", 20), ("MAX_CELLS", 60)):
        monkeypatch.setattr(compare, limit, few)
    spec = _many(any_bench, rejected=15, nulled=10, good=60)
    assert [proof.faults for proof in proofs(any_bench, spec)] == [[], []]

    change(any_bench, "UPDATE clinic_mirror.t SET n = 8 WHERE id BETWEEN 71 AND 85")
    for proof in proofs(any_bench, spec):
        assert proof.faults[0] == "15 rows changed"
        assert len(proof.named) == 15

    change(any_bench, "UPDATE clinic_mirror.t SET n = 8")
    for proof in proofs(any_bench, spec):
        assert proof.faults[0] == "more rows differ than can be looked at one by one"
        assert 0 < len(proof.named) < 60


_NEARLY = {
    "DATE": ["20200229", "2020-W09-6", "2020-02-29 10:00:00", "2019-02-29", "x-00-00-00"],
    "DATETIME": ["2020-02-29", "2020-02-29 10", "2020-02-29 24:00:00", "2020-02-29 10:00:00,5"],
    "TIMESTAMP": [
        *("2020-02-29 10:00:00", "2020-02-29 10:00Z", "20200229T100000Z", "2020-02-29T10:00:00+16"),
        "2262-04-11 23:00:00-05",  # the next day, which is out of range
    ],
}
_QUITE = {
    "DATE": ["2020-02-29"],
    "DATETIME": ["2020-02-29 10:00", "2020-02-29T10:00:00.1234560"],
    "TIMESTAMP": ["2020-02-29 10:00:00+05:30", "2020-02-29T23:59:59.999999Z"],
}


@pytest.mark.parametrize("kind", _QUITE)
def test_texts_that_are_nearly_dates_are_null_in_both(any_bench: KindBench, kind: str) -> None:
    any_bench.run("CREATE TABLE t (id bigint PRIMARY KEY, w {text}, born date)")
    texts = [*_QUITE[kind], *_NEARLY[kind]]
    any_bench.insert("t", *((i, text, _GOOD) for i, text in enumerate(texts)))
    spec = mirrored(any_bench, 0, {"columns": {"w": {"type": kind, "misfits": "null"}}})
    assert any_bench.rows("t_latest", "count(w)") == [(len(_QUITE[kind]),)]
    assert prove(any_bench, spec, against="export")["t"].faults == []
