"""Runs of the real graph's posts, against the real measure service and doubles of both clouds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import dagster as dg
import pytest
from google.auth.credentials import AnonymousCredentials

from mirror_assets.commons.assets import CACHE
from mirror_assets.definitions import build
from mirror_assets.delivery import appengine
from mirror_assets.elation.assets import AS_OF, FIREWALL, MEASURES
from mirror_assets.elation.quality_measures import TABLES, elation_map, gathered, remapped
from mirror_assets.mirroring.inputs import inputs
from mirror_assets.mirroring.sources import open_source
from mirror_assets.mirroring.sources.base import Snapshot, Source
from mirror_assets.orchestration import dbt_models
from mirror_assets.orchestration.ticks import Ticks
from mirror_assets.sample import commons, member_index
from mirror_assets.sample.servers import MariaDB, PostgreSQL
from mirror_assets.settings import Settings
from tests.conftest import SCALE, Bench, utc_now
from tests.delivery.faulty_service import FaultyService
from tests.delivery.measures import KEYS, Measures
from tests.fakes.appengine import AppEngine, Authority, Cluster, serve, write_kubeconfig
from tests.orchestration.conftest import REPOSITORY, Run
from tests.orchestration.test_mirror_runs import _would_retry as would_retry

A_DAY = timedelta(days=1)
APP, NODE = "services-test", "34.86.0.1"
CANARY = "Zebulon Canary"  # the service writes it beside every refusal


@dataclass(frozen=True)
class World:
    """What the posts read, mirrored today and yesterday; the service, and who is posted to it."""

    variables: dict[str, str]
    service: FaultyService
    members: list[str]
    today: date
    graph: dg.Definitions

    def run(
        self,
        instance: dg.DagsterInstance,
        *keys: dg.AssetKey,
        day: date | None = None,
        graph: dg.Definitions | None = None,
        **config: bool,
    ) -> Run:
        """One run of assets (default: the posts), with the config of the first."""
        chosen = keys or (MEASURES,)
        job = (graph or self.graph).resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(
            instance=instance,
            asset_selection=list(chosen),
            partition_key=str(day or self.today),
            run_config={"ops": {"__".join(chosen[0].path): {"config": config}}} if config else None,
            raise_on_error=False,
        )
        return Run(instance, result)

    def posts(self) -> int:
        """How many the service has met since its faults were set."""
        return int(self.service.counts().get("posts", 0))


class Yesterdays:
    """A real source, as if it were read a day ago."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        with self._source.snapshot() as snapshot:
            snapshot.taken_at -= A_DAY
            yield snapshot

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


def _mirror(bench: Bench, settings: Settings) -> date:
    """Mirror what the posts read, yesterday and today; who is who is as of yesterday."""
    for name in AS_OF:
        spec = settings.database(name)
        source: Any = Yesterdays(open_source(spec, settings.database_url(name)))
        day = utc_now().date() - A_DAY
        bench.mirror_day(
            spec, *TABLES[name], day=day, source=source, clock=lambda: utc_now() - A_DAY
        )
    spec = settings.database("elation")
    bench.mirror_day(spec, *TABLES["elation"], source=bench.earlier(spec, days=1))
    bench.mirror_day(spec, *TABLES["elation"])
    return bench.day(spec)


@pytest.fixture(scope="module")
def shared(
    maria: MariaDB,
    elation_schema: str,
    postgres: PostgreSQL,
    extensions: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    for module in (commons, member_index):
        module.create(postgres, scale=SCALE)
    bench = Bench(maria, tmp_path_factory.mktemp("posts"), elation_schema, extensions)
    key = bench.root / "measures.key"
    key.write_text(KEYS["API_KEY_ELATION"])
    key.chmod(0o400)
    with Measures.started(postgres) as measures, pytest.MonkeyPatch.context() as patch:
        variables = bench.variables | {
            "MIRROR_CATALOG_PATH": str(REPOSITORY / "mirror_assets" / "sample" / "catalogs"),
            "MIRROR_DATABASES": ",".join(("elation", *AS_OF)),
            "MIRROR_MEASURES_URL": measures.service.url,
            "MIRROR_MEASURES_KEY_FILE": str(key),
            **{f"{name.upper()}_DATABASE_URL": postgres.url(name) for name in AS_OF},
        }
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setattr(dbt_models, "definitions", dg.Definitions)
        settings = Settings.from_env()
        today = _mirror(bench, settings)
        read = inputs(bench.warehouse, settings.databases(), today, TABLES, as_of=AS_OF)
        mapping = remapped(elation_map(measures.target()))
        members = [made.recipient for made in gathered(bench.warehouse, read.relation, mapping)]
        yield World(variables, measures.service, members, today, build(settings))
    bench.close()


@pytest.fixture
def world(shared: World) -> World:
    """The service without faults."""
    shared.service.faults()
    return shared


def test_a_refused_member_fails_the_asset_with_counts_and_the_others_are_posted(
    world: World, instance: dg.DagsterInstance
) -> None:
    refused, *others = world.members
    world.service.faults(lasting={refused: 400})
    run = world.run(instance, resend_all=True)
    figures, what = run.failed_figures, f"1 of {len(world.members)} members were refused"
    assert run.materialized == set()
    assert (figures["members"], figures["posted"]) == (len(world.members), len(others))
    assert (figures["refused"], figures["not_tried"]) == (1, 0)
    assert figures["by_status"] == {"200": len(others), "400": 1}
    assert figures["reasons"] == {"answered 400 with 1 error": 1}
    assert figures["p95_ms"] >= figures["p50_ms"] > 0
    assert what in run.failures[0]
    assert not would_retry(instance, run)
    (finding,) = run.findings
    assert (finding.kind, finding.scope) == ("delivery_refused", "elation/quality_measures")
    assert (finding.size, finding.partition) == (1, str(world.today))
    assert finding.what.startswith(what)
    assert "DELIVERY_REFUSALS" in finding.next
    for secret in (CANARY, refused):
        assert secret not in f"{run.everything()} {finding}"


def test_a_member_refused_for_good_does_not_keep_the_others_from_their_retry(
    world: World, instance: dg.DagsterInstance
) -> None:
    refused, busy, *others = world.members
    world.service.faults(lasting={refused: 400, busy: 503})
    run = world.run(instance, resend_all=True)
    assert run.failed_figures["by_status"] == {"200": len(others), "400": 1, "503": 1}
    assert would_retry(instance, run)
    (finding,) = run.findings
    assert (finding.kind, finding.size) == ("delivery_unavailable", 2)


def test_a_dry_run_counts_and_nothing_follows_it(
    world: World, instance: dg.DagsterInstance
) -> None:
    run = world.run(instance, dry_run=True, resend_all=True)
    assert run.success
    assert run.materialized == set()
    told = run.observed["quality_measures"]
    assert (told["members"], told["not_tried"], told["posted"]) == (len(world.members),) * 2 + (0,)
    assert world.posts() == 0


def test_unchanged_members_are_posted_again_only_on_demand(
    world: World, instance: dg.DagsterInstance
) -> None:
    def told(**config: bool) -> tuple[int, int, int]:
        figures = world.run(instance, **config).metadata("quality_measures")
        return figures["posted"], figures["unchanged"], figures["refused"]

    count = len(world.members)
    assert told(resend_all=True) == (count, 0, 0)
    assert told() == (0, count, 0)
    assert told(resend_all=True) == (count, 0, 0)
    assert world.posts() == 2 * count


def test_an_old_day_after_a_newer_one_posts_nothing(
    world: World, instance: dg.DagsterInstance
) -> None:
    assert world.run(instance).success
    world.service.faults()
    run = world.run(instance, day=world.today - A_DAY, resend_all=True)
    assert run.success
    figures = run.metadata("quality_measures")
    assert (figures["posted"], figures["superseded_by"]) == (0, str(world.today))
    assert world.posts() == 0


def test_the_cache_job_waits_for_one_under_way(world: World, instance: dg.DagsterInstance) -> None:
    variables = world.variables | {"MIRROR_CACHE_JOB_COMMAND": "true"}
    graph = build(Settings.from_env(variables))
    began = time.monotonic()
    assert world.run(instance, CACHE, graph=graph).success
    longer = 2 * (time.monotonic() - began) + 0.5
    held, released = Event(), Event()

    def hold() -> None:
        warehouse = Settings.from_env(variables).warehouse()
        with closing(warehouse), warehouse.alone("commons_jobs"):
            held.set()
            time.sleep(longer)
            released.set()

    holder = Thread(target=hold)
    holder.start()
    assert held.wait(10)
    assert world.run(instance, CACHE, graph=graph).success
    assert released.is_set()
    holder.join(10)


# -- the firewall before the posts


@dataclass(frozen=True)
class Clouds:
    """Doubles of both clouds, and the graph in which the firewall is configured."""

    app: AppEngine
    cluster: Cluster
    graph: dg.Definitions


@pytest.fixture(scope="module")
def running(shared: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clouds]:
    folder = tmp_path_factory.mktemp("clouds")
    authority, app, cluster = Authority(folder), AppEngine(APP), Cluster()
    with ExitStack() as stack:
        google = stack.enter_context(serve(app.asgi()))
        server = stack.enter_context(serve(cluster.asgi(), authority.issue()))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        anonymous = AnonymousCredentials()  # type: ignore[no-untyped-call]
        real = partial(appengine.IngressRules, credentials=anonymous, endpoint=google)
        patch.setattr(appengine, "IngressRules", real)
        kubeconfig = write_kubeconfig(folder / "config", server, ca=authority.certificate)
        configured = {
            "MIRROR_FIREWALL_APP": APP,
            "MIRROR_FIREWALL_CLUSTER": "here",
            "MIRROR_FIREWALL_KUBECONFIG": str(kubeconfig),
        }
        yield Clouds(app, cluster, build(Settings.from_env(shared.variables | configured)))


@pytest.fixture
def clouds(running: Clouds) -> Iterator[Clouds]:
    """One node, and no rule yet."""
    vars(running.app).update(vars(AppEngine(APP)))
    vars(running.cluster).update(vars(Cluster(nodes=[[("ExternalIP", NODE)]])))
    yield running
    assert running.app.wrong == []


def test_the_firewall_is_there_and_before_the_posts_only_where_an_app_is_named(
    world: World, clouds: Clouds
) -> None:
    without, with_it = (found.resolve_asset_graph() for found in (world.graph, clouds.graph))
    assert not without.has(FIREWALL)
    assert FIREWALL not in without.get(MEASURES).parent_keys
    assert with_it.has(FIREWALL)
    assert FIREWALL in with_it.get(MEASURES).parent_keys


def test_a_dry_run_of_the_firewall_tells_its_plan_and_changes_nothing(
    world: World, clouds: Clouds, instance: dg.DagsterInstance
) -> None:
    planned = world.run(instance, FIREWALL, graph=clouds.graph, dry_run=True)
    assert planned.success
    assert planned.materialized == set()
    assert planned.observed["app_engine_firewall"]["added"] == 1
    assert f"add 1000: {NODE}" in planned.observed["app_engine_firewall"]["plan"]
    assert clouds.app.writes == []
    done = world.run(instance, FIREWALL, graph=clouds.graph)
    assert done.metadata("app_engine_firewall")["added"] == 1
    assert [(verb, sent["sourceRange"]) for verb, _, sent in clouds.app.writes] == [
        ("create", NODE)
    ]


def test_posts_wait_for_a_firewall_that_failed_and_for_one_that_only_planned(
    world: World, clouds: Clouds, instance: dg.DagsterInstance
) -> None:
    runs: list[Run] = []

    def launch(keys: frozenset[dg.AssetKey], partition: str) -> bool:
        assert partition == str(world.today)
        ours = [key for key in (FIREWALL, MEASURES) if key in keys]
        runs.append(world.run(instance, *ours, graph=clouds.graph))
        return runs[-1].success

    clouds.cluster.nodes = []
    ticks = Ticks(clouds.graph, instance)
    for database, tables in TABLES.items():
        for table in tables:
            landed = dg.AssetMaterialization([database, table], partition=str(world.today))
            instance.report_runless_asset_event(landed)
    assert not ticks.run(launch)
    findings = [finding for run in runs for finding in run.findings]
    assert [(found.kind, found.scope) for found in findings] == [
        ("firewall", "elation/app_engine_firewall")
    ]
    assert "the cluster has no external address" in findings[0].what
    assert not any(would_retry(instance, run) for run in runs)

    clouds.cluster.nodes = [[("ExternalIP", NODE)]]
    assert world.run(instance, FIREWALL, graph=clouds.graph, dry_run=True).success
    assert ticks.run(launch)
    assert world.posts() == 0
    assert {name for run in runs for name in run.materialized} == set()

    assert world.run(instance, FIREWALL, graph=clouds.graph).success
    assert ticks.run(launch)
    assert runs[-1].materialized == {"quality_measures"}


def test_a_cloud_that_does_not_answer_is_tried_again(
    world: World, clouds: Clouds, instance: dg.DagsterInstance
) -> None:
    clouds.cluster.answers = [503]
    run = world.run(instance, FIREWALL, graph=clouds.graph)
    assert would_retry(instance, run)
    assert [finding.kind for finding in run.findings] == ["firewall_unavailable"]
