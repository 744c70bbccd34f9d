"""Carrying out a plan, so that a kill at any point and a rerun end in the same state.

One writer at a time per dataset: its turn is a temporary table, which the service creates for one
of several only, and forgets when its owner does not prolong it. Before the first visible step the
plan is written into the lake. Whoever has the next turn carries an unfinished plan out to its end
before reading anything: every step can be done again, and jobs are known by their ids.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from mirror_assets.mirroring.errors import MirrorError, RowsUnaccounted, WarehouseFault
from mirror_assets.mirroring.storage import Storage
from mirror_assets.mirroring.warehouses.bigquery import service
from mirror_assets.mirroring.warehouses.bigquery.plan import (
    Altered,
    Created,
    Dropped,
    Loaded,
    Plan,
    Renamed,
)
from mirror_assets.mirroring.warehouses.bigquery.service import OWN, Job, Service
from mirror_assets.mirroring.warehouses.bigquery.sql import name

_log = logging.getLogger(__name__)
#: Views in one script.
_VIEWS = 50
_WEEK = 7 * 86_400.0


class Turn:
    """The right to write into a dataset. It ends by itself ``lease`` seconds after it was last
    prolonged, so that a killed writer does not keep it.
    """

    def __init__(self, service_: Service, dataset: str, *, lease: float, patience: float) -> None:
        self._service = service_
        self._dataset = dataset
        self._lease = lease
        self._patience = patience
        self._table = f"{OWN}turn"
        self._token = secrets.token_hex(8)
        self._until = 0.0

    def take(self) -> None:
        """Wait for it. Raises WarehouseFault when others keep it for too long."""
        deadline = time.monotonic() + self._patience
        pause = 0.05
        while not self._is_taken():
            if time.monotonic() > deadline:
                raise WarehouseFault(
                    "another run has been publishing for too long",
                    where=f"dataset {self._dataset}",
                    remedy="wait until it is done, then run the partition again",
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 2.0)

    def _is_taken(self) -> bool:
        until = time.time() + self._lease
        expires = service.soon(self._lease)
        mine = self._service.claim(self._dataset, self._table, self._token, expires)
        if mine or self._is_mine():
            self._until = until
            return True
        return False

    def _is_mine(self) -> bool:
        """Whether we were given it and the answer was lost; an expired one is removed."""
        found = self._service.table(self._dataset, self._table)
        if found is None:
            return False
        if found.expires is not None and found.expires.timestamp() < time.time():
            self._service.drop(self._dataset, self._table)
        return bool(found.description == self._token)

    def prolong(self) -> None:
        """Keep it, while jobs are waited for. Raises WarehouseFault when it was lost."""
        if time.time() < self._until - self._lease / 2:
            return
        until = time.time() + self._lease
        expires = service.soon(self._lease)
        mine = self._is_mine() and self._service.prolong(self._dataset, self._table, expires)
        if not mine:
            raise WarehouseFault(
                "this run took too long and lost its turn to publish",
                where=f"dataset {self._dataset}",
                remedy="run the partition again",
            )
        self._until = until

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Prolong it in the background. Raises WarehouseFault at the end when it was lost."""
        done = threading.Event()
        with ThreadPoolExecutor(1, thread_name_prefix="turn") as pool:
            keeping = pool.submit(self._keep, done)
            try:
                yield
            finally:
                done.set()
            keeping.result()

    def _keep(self, done: threading.Event) -> None:
        while not done.wait(self._lease / 4):
            self.prolong()

    def give_up(self) -> None:
        """Leave it to the next; one that was lost belongs to another by now."""
        try:
            if self._is_mine():
                self._service.drop(self._dataset, self._table)
        except MirrorError as error:
            _log.warning("%s; the turn to publish ends by itself", error)


class Journal:
    """The one unfinished plan of each dataset, as a file in the lake."""

    def __init__(self, lake: Storage) -> None:
        self._lake = lake

    def write(self, plan: Plan) -> None:
        with self._lake.guard(f"dataset {plan.dataset}"):
            self._lake.put({self._path(plan.dataset): json.dumps(plan.to_json()).encode()})

    def read(self, dataset: str) -> Plan | None:
        with self._lake.guard(f"dataset {dataset}"):
            try:
                return Plan.from_json(json.loads(self._lake.read(self._path(dataset))))
            except FileNotFoundError:
                return None

    def remove(self, dataset: str) -> None:
        with self._lake.guard(f"dataset {dataset}"):
            try:
                self._lake.delete(self._path(dataset))
            except FileNotFoundError:
                return

    def _path(self, dataset: str) -> str:
        return f"{self._lake.root}/.journal/{dataset}.json"


class Carrier:
    """Carries out plans while it has the turn."""

    def __init__(self, service_: Service, lake: Storage, turn: Turn) -> None:
        self._service = service_
        self._lake = lake
        self._journal = Journal(lake)
        self._turn = turn

    def finish_left_over(self, dataset: str) -> None:
        """Carry out what a killed writer has left. What can never be done is given up."""
        plan = self._journal.read(dataset)
        if plan is None:
            return
        _log.warning("dataset %s: finishing what an earlier run began to publish", dataset)
        try:
            self._finish(plan)
        except MirrorError as error:
            if error.transient:
                raise
            _log.error("%s; what the earlier run began is given up", error)

    def carry_out(self, plan: Plan) -> None:
        """Raises WarehouseRefused or WarehouseFault; after the latter the plan may yet be finished
        by the next writer.
        """
        self._stage(plan)
        self._journal.write(plan)
        self._finish(plan)

    def _stage(self, plan: Plan) -> None:
        """Nobody sees these: control rows in tables of their own."""
        expires = service.soon(_WEEK)
        for step in plan.staged:
            self._service.create_table(step.dataset, step.table, step.fields, expires=expires)
        self._load(plan, plan.staged)

    def _finish(self, plan: Plan) -> None:
        try:
            self._change_structure(plan)
            self._load(plan, plan.loads)
            self._drop(plan.emptied)
            self._move_views(plan)
            self._write_rows(plan)
        except MirrorError as error:
            if not error.transient:
                self._journal.remove(plan.dataset)
            raise
        self._journal.remove(plan.dataset)
        self._clean_up(plan)

    def _change_structure(self, plan: Plan) -> None:
        for step in plan.structure:
            self._turn.prolong()
            where = f"{step.dataset}.{step.table}"
            match step:
                case Created():
                    self._service.ensure_dataset(step.dataset)
                    self._service.create_table(
                        step.dataset, step.table, step.fields, partitioned=step.partitioned
                    )
                case Altered():
                    if step.statements:
                        self._run([self._script(plan, f"columns of {where}", step.statements)])
                    self._service.alter_fields(step.dataset, step.table, step.fields)
                case Renamed():
                    path = self._service.qualified(step.dataset, step.table)
                    rename = f"ALTER TABLE {path} RENAME TO {name(step.new_name)}"
                    self._run([self._script(plan, f"name of {where}", [rename])])
                case Dropped():
                    self._service.drop(step.dataset, step.table)

    def _load(self, plan: Plan, steps: Sequence[Loaded]) -> None:
        """All at the same time; each as a whole or not at all."""
        jobs = [
            service.load(
                *(self._service.project, step.dataset, step.table, step.fields, step.uris),
                about=f"load of {step.dataset}.{step.table}",
                key=plan.token,
                labels=service.labels_of(plan.dataset),
            )
            for step in steps
        ]
        for step, job in zip(steps, self._run(jobs), strict=True):
            if job.output_rows != step.rows:
                raise RowsUnaccounted(
                    f"{step.rows} rows were staged and BigQuery loaded {job.output_rows}",
                    where=f"{step.dataset}.{step.table}",
                    remedy="run the partition again",
                )

    def _drop(self, steps: Iterable[Dropped]) -> None:
        for step in steps:
            self._turn.prolong()
            self._service.drop(step.dataset, step.table)

    def _move_views(self, plan: Plan) -> None:
        statements = [
            f"CREATE OR REPLACE VIEW {self._service.qualified(view.dataset, view.view)}"
            f" AS {view.statement}"
            for view in plan.views
        ]
        for first in range(0, len(statements), _VIEWS):
            some = statements[first : first + _VIEWS]
            self._run([self._script(plan, f"views of {plan.dataset}", some)])
        self._drop(plan.dropped_views)

    def _write_rows(self, plan: Plan) -> None:
        """The control rows of all tables change together."""
        if plan.rows:
            begin, commit = "BEGIN TRANSACTION", "COMMIT TRANSACTION"
            script = [begin, *plan.rows, commit]
            self._run([self._script(plan, f"control rows of {plan.dataset}", script)])

    def _script(self, plan: Plan, about: str, statements: Sequence[str]) -> Job:
        text = ";\n".join(statements)
        labels = service.labels_of(plan.dataset)
        return service.query(text, about=about, key=plan.token, labels=labels)

    def _run(self, jobs: Sequence[Job]) -> list[Any]:
        return self._service.run(jobs, self._turn.prolong)

    def _clean_up(self, plan: Plan) -> None:
        """What was on its way has arrived; what cannot be removed now expires or is swept."""
        try:
            self._drop(Dropped(step.dataset, step.table) for step in plan.staged)
            uris = [uri for step in (*plan.staged, *plan.loads) for uri in step.uris]
            for folder in {uri.rpartition("/")[0] for uri in uris}:
                with self._lake.guard("staged files"):
                    self._lake.delete_folder(folder)
        except MirrorError as error:
            _log.warning("%s; it is removed later", error)
