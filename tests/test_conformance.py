"""Every case of the specification, and every fault that must be seen, is a test by its name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
#: Cases by section: the mirror, encounters, measures, firewall, Commons and its Draft.js bodies.
CASES = {
    "A": range(1, 16),
    "B": range(1, 23),
    "C": range(1, 28),
    "D": range(1, 7),
    "E": [*range(1, 11), *range(20, 34), *range(40, 47)],
}
#: What may go wrong downstream of the mirrors, and the test that shows it.
FAULTS = {
    "service down for the whole run": "test_the_service_is_down_for_the_whole_run",
    "accepted, and the connection dies before the answer": (
        "test_the_connection_dies_after_acceptance"
    ),
    "kill -9 between acceptance and ledger": "test_kill_9_between_acceptance_and_ledger",
    "two runs at once": "test_two_runs_at_once_leave_one_ledger_and_take_turns",
    "member with 5,000 measures": "test_a_member_with_5000_measures",
    "body over the service's limit": "test_a_body_over_the_services_own_limit",
    "map empty or malformed": "test_a_map_that_makes_no_sense_stops_before_any_post",
    "note in the hour when clocks change": "test_notes_of_the_hours_when_clocks_change",
    "empty warehouse": "test_a_warehouse_into_which_nothing_was_mirrored_names_every_table",
    "missing upstream table": "test_a_day_that_was_not_mirrored_names_what_is_missing",
    "input replaced while its reader runs": (
        "test_an_input_replaced_while_its_reader_runs_makes_it_run_again_once"
    ),
    "input replaced between two parts": "test_an_input_replaced_between_two_parts_is_refused",
    "run dead between documents and event": (
        "test_documents_of_a_run_that_failed_after_them_are_read_by_the_job"
    ),
    "input expired": "test_a_day_that_has_expired_is_missing_and_not_empty",
    "input set aside": "test_a_day_that_was_set_aside_is_missing_and_not_empty",
    "old day posted again": "test_an_old_day_posts_nothing",
    "old day's documents": "test_an_older_partition_touches_nothing",
}


@pytest.mark.parametrize(("section", "number"), [(s, n) for s in CASES for n in CASES[s]])
def test_a_case_is_a_test(section: str, number: int) -> None:
    names, said = _written()
    by_name = re.compile(rf"test_(\w+_)?{section.lower()}_{number}(_|$)")
    assert f"{section}-{number}" in said or any(map(by_name.match, names))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_a_test(fault: str) -> None:
    assert FAULTS[fault] in _written()[0]


@cache
def _written() -> tuple[frozenset[str], frozenset[str]]:
    """Names of test functions; ids that are parameters of tests, such as E-20."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in TESTS.rglob("test_*.py")]
    return _found_in([node for tree in trees for node in ast.walk(tree)])


def _found_in(nodes: Iterable[ast.AST]) -> tuple[frozenset[str], frozenset[str]]:
    nodes = list(nodes)
    names = {n.name for n in nodes if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")}
    return frozenset(names), frozenset(_ids(nodes))


def _ids(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Of ``id=..``, ``ids=..`` and tables of cases; a text that speaks of a case is no test."""
    for node in nodes:
        texts: Iterable[ast.AST | None] = ()
        if isinstance(node, ast.keyword) and node.arg in ("id", "ids"):
            texts = ast.walk(node.value)
        elif isinstance(node, ast.Dict):
            texts = node.keys
        for text in texts:
            if isinstance(text, ast.Constant) and re.fullmatch(r"[A-Z]-\d+", str(text.value)):
                yield str(text.value)


def test_a_case_that_is_only_spoken_of_is_not_a_test() -> None:
    module = '''
CASES = {"E-1": 0}
def test_b_2() -> None:
    """A-3: it is said here, and here: D-4."""
    pytest.param(id="C-5"), ["A-6"]
'''
    assert _found_in(ast.walk(ast.parse(module))) == ({"test_b_2"}, {"E-1", "C-5"})
