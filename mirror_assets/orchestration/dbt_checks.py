"""dbt's tests of mirrored tables as asset checks of those tables; they hold nothing back.

A test starts by itself once its table of the newest day has landed. Run alone, tests judge the
newest day of each table; in a run that mirrors a day, that day.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator
from datetime import UTC, date, datetime

import dagster as dg

from mirror_assets.mirroring.errors import at_edge
from mirror_assets.orchestration.automation import when_the_table_lands
from mirror_assets.orchestration.dbt_command import DbtCommand
from mirror_assets.orchestration.dbt_faults import joined
from mirror_assets.orchestration.dbt_manifest import Manifest, Node
from mirror_assets.orchestration.downstream import POOL, failure
from mirror_assets.orchestration.session import MirrorResource
from mirror_assets.partitions import day_of


def definitions(manifest: Manifest) -> dg.Definitions:
    """One step per database whose tables dbt tests, and a job that runs it alone."""
    databases = {key.path[0] for key in map(manifest.source_key, manifest.source_tests.values())}
    checks = {database: tests_of(manifest, database) for database in sorted(databases)}
    jobs = [
        dg.define_asset_job(
            f"dbt_tests_of_{database}",
            selection=dg.AssetSelection.checks(found),
            description="dbt's tests of mirrored tables, of their newest day.",
        )
        for database, found in checks.items()
    ]
    return dg.Definitions(asset_checks=list(checks.values()), jobs=jobs)


def tests_of(manifest: Manifest, database: str) -> dg.AssetChecksDefinition:
    """dbt's tests of the tables of one database."""
    tests = {
        manifest.check_key(test): test
        for test in manifest.source_tests.values()
        if manifest.source_key(test).path[0] == database
    }

    @dg.multi_asset_check(
        # not as its job: names are unique among jobs and steps
        name=f"dbt_tests_of_{database}_check",
        specs=[manifest.check_spec(test, when_the_table_lands()) for test in tests.values()],
        can_subset=True,
        pool=POOL,
    )
    def run_tests(
        context: dg.AssetCheckExecutionContext, mirror: MirrorResource
    ) -> Iterator[dg.AssetCheckResult]:
        wanted = context.selected_asset_check_keys
        chosen = [test for key, test in tests.items() if key in wanted]
        faults = []
        try:
            for day, of_day in _by_day(context, manifest, mirror, database, chosen).items():
                command = DbtCommand(manifest, mirror, day)
                for result in command.test([test["name"] for test in of_day]):
                    if isinstance(result, dg.AssetCheckResult) and _key(result) in wanted:
                        yield result
                if fault := command.faults():
                    faults.append(fault.at(f"{database} of {day}"))
        except Exception as error:
            raise failure(context, at_edge(error, context.op_def.name)) from None
        if faults:
            raise failure(context, joined(faults))

    return run_tests


def _by_day(
    context: dg.AssetCheckExecutionContext,
    manifest: Manifest,
    mirror: MirrorResource,
    database: str,
    tests: Collection[Node],
) -> dict[date, list[Node]]:
    """The tests by the day to judge: the run's, else the newest that is published of the table.

    Raises InputMissing, naming the tables that were never published.
    """
    if context.has_partition_key:
        return {day_of(context.partition_key): list(tests)}
    tables = {database: sorted({manifest.source(test)["name"] for test in tests})}
    today = datetime.now(UTC).date()
    read = mirror.inputs(today, tables, as_of=frozenset({database}))
    found: dict[date, list[Node]] = defaultdict(list)
    for test in tests:
        found[read.days[database, manifest.source(test)["name"]]].append(test)
    return found


def _key(result: dg.AssetCheckResult) -> dg.AssetCheckKey:
    assert result.asset_key is not None
    assert result.check_name is not None
    return dg.AssetCheckKey(result.asset_key, result.check_name)
