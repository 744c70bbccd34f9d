"""When assets downstream of the mirrors start, tick by tick, with real runs between the ticks."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from mirror_assets.mirroring.errors import MirrorError, PermanentError, TransientError
from mirror_assets.orchestration.automation import (
    when_a_models_inputs_land,
    when_inputs_land,
    when_the_table_lands,
)
from mirror_assets.orchestration.downstream import daily, step
from mirror_assets.orchestration.retries import RETRY_TAG
from mirror_assets.partitions import DAILY, key_of
from tests.orchestration.test_mirror_runs import _would_retry as would_retry

TODAY = key_of(datetime.now(UTC).date())
OLD = "2026-02-01"
#: What readers do while they run.
Body = Callable[[str], None]


class Graph:
    """Tables ``a``, ``b`` and, mirrored at another hour, ``members``; readers of them."""

    def __init__(self) -> None:
        self.instance = dg.DagsterInstance.ephemeral()
        self.body: Body = lambda _name: None
        self.ran: list[str] = []
        self.checks_asked: set[str] = set()
        self.definitions = self._definitions()
        self._cursor: Any = None
        assert self.tick() == set()

    def tick(self) -> set[str]:
        """What is asked for, of the newest day alone."""
        result = dg.evaluate_automation_conditions(
            self.definitions, self.instance, cursor=self._cursor
        )
        self._cursor = result.cursor
        graph = self.definitions.resolve_asset_graph()
        found = {
            key.to_user_string(): result.get_requested_partitions(key)
            for key in graph.get_all_asset_keys()
            if result.get_num_requested(key)
        }
        assert all(partitions == {TODAY} for partitions in found.values())
        self.checks_asked = {
            asked.key.name
            for asked in result.results
            if isinstance(asked.key, dg.AssetCheckKey) and not asked.true_subset.is_empty
        }
        return set(found)

    def land(self, *tables: str, day: str = TODAY) -> None:
        for table in tables:
            self.instance.report_runless_asset_event(dg.AssetMaterialization(table, partition=day))

    def run(self, *names: str) -> bool:
        """One run of some assets for the newest day."""
        job = self.definitions.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey(name) for name in names],
            partition_key=TODAY,
            raise_on_error=False,
        ).success

    def follow(self) -> list[str]:
        """Run what is asked for until all is quiet; what ran, in order."""
        self.ran.clear()
        while asked := self.tick():
            self.run(*asked)
        return self.ran

    def _definitions(self) -> dg.Definitions:
        @dg.multi_asset(
            specs=[
                dg.AssetSpec(name, partitions_def=DAILY, skippable=True, group_name=group)
                for name, group in (("a", "vendor"), ("b", "vendor"), ("members", "index"))
            ],
            can_subset=True,
        )
        def mirrors(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
            for key in context.selected_asset_keys:
                yield dg.MaterializeResult(asset_key=key)

        @dg.asset_check(asset="a", automation_condition=when_the_table_lands())
        def tested() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed=True)

        return dg.Definitions(
            assets=[
                mirrors,
                self._reader("reads_a", ["a"]),
                self._reader("reads_b", ["b"]),
                self._reader("reads_both", ["a", "members"], frozenset({"index"})),
                self._reader("reads_readers", ["reads_a", "b"]),
            ],
            asset_checks=[tested],
        )

    def _reader(
        self, name: str, deps: list[str], as_of: frozenset[str] = frozenset()
    ) -> dg.AssetsDefinition:
        @dg.asset(
            name=name,
            deps=deps,
            partitions_def=DAILY,
            automation_condition=when_inputs_land(as_of),
        )
        def read() -> None:
            self.ran.append(name)
            self.body(name)

        return read


@pytest.fixture
def graph() -> Graph:
    return Graph()


class Models(Graph):
    """The same with models, which are one step: of a table, of a reader, and of both of those."""

    _READ: Mapping[str, list[str]] = {
        "of_a": ["a"],
        "of_readers": ["reads_a"],
        "of_both": ["of_a", "of_readers"],
    }

    def _definitions(self) -> dg.Definitions:
        @dg.multi_asset(
            specs=[
                dg.AssetSpec(
                    name,
                    deps=deps,
                    group_name="models",
                    partitions_def=DAILY,
                    skippable=True,
                    automation_condition=when_a_models_inputs_land(
                        "models", [dg.AssetKey("reads_a")] if name != "of_a" else []
                    ),
                )
                for name, deps in self._READ.items()
            ],
            can_subset=True,
        )
        def models(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
            chosen = {key.to_user_string() for key in context.selected_asset_keys}
            for name in self._READ:
                if name in chosen:
                    self.ran.append(name)
                    yield dg.MaterializeResult(asset_key=name)

        return dg.Definitions.merge(super()._definitions(), dg.Definitions(assets=[models]))

    def of_models(self) -> list[str]:
        self.follow()
        return [name for name in self.ran if name in self._READ]


def test_models_run_once_when_all_that_they_are_made_of_is_replaced() -> None:
    graph = Models()
    for _ in range(2):
        graph.run("a", "b")
        assert graph.of_models() == ["of_a", "of_readers", "of_both"]
        assert graph.follow() == []


def test_models_that_do_not_read_what_failed_are_made_nevertheless() -> None:
    graph = Models()

    def fail(name: str) -> None:
        if name == "reads_a":
            raise dg.Failure("no")

    graph.body = fail
    graph.run("a", "b")
    assert graph.of_models() == ["of_a"]
    graph.body = lambda _name: None
    graph.run("a")
    assert graph.of_models() == ["of_a", "of_readers", "of_both"]

    graph.body = fail
    graph.run("a")
    assert graph.of_models() == ["of_a", "of_both"]  # of the day's older readers


def test_a_failed_table_holds_back_only_its_readers(graph: Graph) -> None:
    graph.land("a")
    assert graph.tick() == {"reads_a", "reads_both"}
    assert graph.tick() == set()
    graph.land("b")
    assert graph.tick() == {"reads_b"}


def test_a_replay_of_an_old_day_starts_nothing(graph: Graph) -> None:
    graph.land("a", "b", "members", day=OLD)
    assert graph.tick() == set()


def test_a_second_refresh_makes_every_reader_run_again_once(graph: Graph) -> None:
    everything = ["reads_a", "reads_b", "reads_both", "reads_readers"]
    for _ in range(2):
        graph.run("a", "b")
        assert sorted(graph.follow()) == everything
        assert graph.follow() == []


def test_an_input_replaced_while_its_reader_runs_makes_it_run_again_once(graph: Graph) -> None:
    asked: list[set[str]] = []

    def replace(name: str) -> None:
        if name == "reads_a" and not asked:
            graph.land("a")
            asked.append(graph.tick())

    graph.body = replace
    graph.land("a")
    ran = graph.follow()
    assert ran.count("reads_a") == 2
    assert "reads_a" not in asked[0]  # it was still running
    assert graph.follow() == []


def test_an_input_replaced_on_the_tick_after_the_request_makes_it_run_again_once(
    graph: Graph,
) -> None:
    graph.land("b")
    assert graph.tick() == {"reads_b"}
    graph.land("b")
    assert graph.run("reads_b")
    assert graph.follow() == ["reads_b"]
    assert graph.follow() == []


def test_a_reader_that_failed_for_want_of_members_starts_when_they_land(graph: Graph) -> None:
    def fail(name: str) -> None:
        if name == "reads_both":
            raise dg.Failure("no published partition of members")

    graph.body = fail
    graph.land("a")
    assert "reads_both" in graph.follow()
    assert graph.follow() == []  # a permanent failure is not tried again by itself
    graph.body = lambda _name: None
    graph.land("members")
    assert graph.follow() == ["reads_both"]
    graph.land("members")  # their next day, or a second refresh: nobody failed
    assert graph.follow() == []


def test_members_that_land_while_their_reader_fails_start_it_once_more(graph: Graph) -> None:
    def fail(name: str) -> None:
        if name == "reads_both" and graph.ran.count(name) == 1:
            graph.land("members")
            graph.tick()
            raise dg.Failure("no published partition of members")

    graph.body = fail
    graph.land("a")
    assert graph.follow().count("reads_both") == 2
    assert graph.follow() == []


def test_a_failed_reader_waits_for_new_input(graph: Graph) -> None:
    def fail(_name: str) -> None:
        raise dg.Failure("for ever")

    graph.body = fail
    graph.land("b")
    assert graph.follow() == ["reads_b"]
    assert graph.follow() == []
    graph.land("b")
    assert graph.follow() == ["reads_b"]


def test_a_check_runs_once_its_table_has_landed(graph: Graph) -> None:
    graph.land("a")
    graph.tick()
    assert graph.checks_asked == {"tested"}
    graph.land("a", day=OLD)
    graph.tick()
    assert graph.checks_asked == set()
    graph.land("a")
    graph.tick()
    assert graph.checks_asked == {"tested"}


@pytest.mark.parametrize("error", [TransientError("down"), PermanentError("refused")])
def test_a_transient_failure_is_tried_again_and_a_permanent_one_is_not(
    instance: dg.DagsterInstance, error: MirrorError
) -> None:
    @daily(key=dg.AssetKey("reader"), deps=[], description="", group="readers", kinds=set())
    def reader(context: dg.AssetExecutionContext) -> None:
        with step(context):
            raise error

    job = dg.Definitions(assets=[reader]).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, partition_key=TODAY, raise_on_error=False)
    (failed,) = result.get_step_failure_events()
    told = failed.step_failure_data.user_failure_data
    assert told is not None
    assert told.metadata["cured_by_retry"].value is error.transient
    assert would_retry(instance, result.run_id) is error.transient
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    # a pod whose chunk failed for good must not take back what another one said
    assert (RETRY_TAG in run.tags) is error.transient
