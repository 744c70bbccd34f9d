"""The process's side of a Dagster run: one MirrorRun per database, shared by its chunks.

Chunks in one process share one snapshot; while Dagster stores the events of one chunk, the next is
published and those after it are copied. Where each chunk has a pod, each has a process of its own.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import date, datetime
from pathlib import Path

import dagster as dg
from pydantic import PrivateAttr

from mirror_assets.mirroring.catalog import DatabaseSpec, TableSpec
from mirror_assets.mirroring.inputs import Inputs, Tables, inputs
from mirror_assets.mirroring.mirror import MirrorRun
from mirror_assets.mirroring.proof.verify import Against, Verifier, verifier
from mirror_assets.mirroring.scratch import remove_scratch
from mirror_assets.mirroring.sources.base import Source
from mirror_assets.mirroring.staged import TableReport
from mirror_assets.mirroring.warehouses import Warehouse
from mirror_assets.settings import Settings, reading


class MirrorResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """What steps and checks need: settings, source, warehouse and the running mirror."""

    _settings: Settings = PrivateAttr()
    _warehouse: Warehouse = PrivateAttr()
    _scratch: Path = PrivateAttr()
    _runs: dict[tuple[str, date], MirrorRun] = PrivateAttr(default_factory=dict)
    _publisher: ThreadPoolExecutor = PrivateAttr()
    _ahead: dict[tuple[str, ...], Future[list[TableReport]]] = PrivateAttr()

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["MirrorResource"]:
        del context
        self._settings = Settings.from_env()
        self._warehouse = self._settings.warehouse()
        self._scratch = self._settings.new_scratch()
        self._runs = {}
        self._ahead = {}
        self._publisher = ThreadPoolExecutor(1, thread_name_prefix="publish")
        try:
            yield self
        finally:
            self._publisher.shutdown(wait=True, cancel_futures=True)
            for run in self._runs.values():
                run.__exit__()
            self._warehouse.close()
            remove_scratch(self._scratch)

    @property
    def scratch(self) -> Path:
        """The run's private folder; gone when the run is over."""
        return self._scratch

    @property
    def settings(self) -> Settings:
        return self._settings

    def inputs(self, day: date, tables: Tables, as_of: frozenset[str] = frozenset()) -> Inputs:
        """The published tables that a derived one reads. Raises InputMissing, naming others."""
        specs = self._settings.databases()
        return inputs(self._warehouse, specs, day, tables, as_of=as_of)

    @property
    def warehouse(self) -> Warehouse:
        return self._warehouse

    def source(self, spec: DatabaseSpec, run_id: str = "") -> Source:
        """Raises SettingsError when nothing says where the database is."""
        return reading.source(self._settings, spec, run_id=run_id)

    def verifier(
        self, spec: DatabaseSpec, day: date, against: Against
    ) -> AbstractContextManager[Verifier]:
        """Proves tables of a day."""
        return verifier(
            spec,
            lambda: self.source(spec),
            self._settings.landing(),
            self._warehouse,
            partition=day,
            against=against,
        )

    def publish(
        self,
        spec: DatabaseSpec,
        tables: Sequence[TableSpec],
        selected: Sequence[TableSpec],
        *,
        partition: date,
        run_id: str,
        accept_volume: frozenset[str] = frozenset(),
        agree: Callable[[datetime], None] | None = None,
    ) -> list[TableReport]:
        """Publish ``tables``; the first call starts copying all ``selected`` ones, these first.

        The chunk after these is published next, without being asked, while the caller reports: a
        run that is killed just then leaves published tables without an event, and repeating it is
        harmless. ``agree``: see MirrorRun.
        """
        run = self._runs.get((spec.name, partition))
        if run is None:
            later = [table for table in selected if table not in tables]
            run = MirrorRun(
                spec,
                self.source(spec, run_id),
                self._settings.landing(),
                self._warehouse,
                partition=partition,
                run_id=run_id,
                tables=[*tables, *later],
                scratch=self._scratch,
                memory=self._settings.memory,
                spill=self._settings.spill,
                accept_volume=accept_volume,
                agree=agree,
            )
            self._runs[spec.name, partition] = run.__enter__()
        published = self._ahead.pop(_names(tables), None)
        reports = published.result() if published else run.publish(tables)
        following = _following(spec, tables, selected)
        if following and _names(following) not in self._ahead:
            self._ahead[_names(following)] = self._publisher.submit(run.publish, following)
        return reports


def _names(tables: Sequence[TableSpec]) -> tuple[str, ...]:
    """Two databases may have a table of one name."""
    return tuple(f"{table.database}/{table.name}" for table in tables)


def _following(
    spec: DatabaseSpec, tables: Sequence[TableSpec], selected: Sequence[TableSpec]
) -> tuple[TableSpec, ...]:
    """The selected tables of the chunk after the one that ``tables`` belong to."""
    wanted, first = {table.name for table in selected}, tables[0].name
    chunks = [tuple(table for table in chunk if table.name in wanted) for chunk in spec.chunks]
    numbers = [number for number, chunk in enumerate(chunks) if chunk]
    here = next(n for n in numbers if any(table.name == first for table in chunks[n]))
    return next((chunks[number] for number in numbers if number > here), ())
