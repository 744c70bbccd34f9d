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

from mirror_assets.mirroring.errors import (
    MirrorError,
    PublicationPending,
    RowsUnaccounted,
    WarehouseFault,
    WarehouseRefused,
    at_edge,
)
from mirror_assets.mirroring.storage import Storage
from mirror_assets.mirroring.warehouses.bigquery import service
from mirror_assets.mirroring.warehouses.bigquery.plan import (
    OWN,
    Altered,
    Created,
    Dropped,
    Loaded,
    Plan,
    folder_of,
)
from mirror_assets.mirroring.warehouses.bigquery.service import Job, Service
from mirror_assets.mirroring.warehouses.bigquery.sql import name

_log = logging.getLogger(__name__)
#: Views in one script.
_VIEWS = 50
#: The part of its lease after which a turn is prolonged must be short: what is left outlasts the
#: retries of a request.
_FRESH = 0.9
_WEEK = 7 * 86_400.0


class Turn:
    """The right to write into a dataset, or another that ``name`` tells. It ends by itself
    ``lease`` seconds after it was last prolonged, so that a killed writer does not keep it.

    It is a table whose description is its owner's token. What it says is compared before anything
    depends on it, because another writer's turn has the same name.
    """

    def __init__(
        self, service_: Service, dataset: str, name: str = "turn", *, lease: float, patience: float
    ) -> None:
        self._service = service_
        self._dataset = dataset
        self._lease = lease
        self._patience = patience
        self._table = f"{OWN}{name}"
        self._token = secrets.token_hex(8)
        self._until = 0.0

    def take(self) -> None:
        """Wait for it, unless it is ours. Raises WarehouseFault when others keep it too long."""
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
        if self._service.claim(self._dataset, self._table, self._token, service.soon(self._lease)):
            self._until = until
            return True
        # we may have been given it, and the answer was lost
        return self._is_mine() and self._renew()

    def _is_mine(self) -> bool:
        found = self._service.table(self._dataset, self._table)
        return found is not None and found.description == self._token

    def _renew(self) -> bool:
        """Give it its whole time again; False when it is another's, who gets that time."""
        until = time.time() + self._lease
        owner = self._service.prolong(self._dataset, self._table, service.soon(self._lease))
        if owner == self._token:
            self._until = until
        return owner == self._token

    @property
    def _is_fresh(self) -> bool:
        """Whether it lasts for longer than a request is tried, however often."""
        return time.time() < self._until - _FRESH * self._lease

    def prolong(self) -> None:
        """Keep it, while jobs are waited for. Raises WarehouseFault when it was lost."""
        if not self._is_fresh:
            self.confirm()

    def confirm(self) -> None:
        """Ask whether it is ours. Raises WarehouseFault when it was lost."""
        if not (self._is_mine() if self._is_fresh else self._renew()):
            raise WarehouseFault(
                "this run took too long and lost its turn to publish",
                where=f"dataset {self._dataset}",
                remedy="run the partition again",
            )

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
        while not done.wait((1 - _FRESH) * self._lease):
            self.prolong()

    def give_up(self) -> None:
        """Leave it to the next; one that was lost belongs to another by now."""
        try:
            self.confirm()
            self._service.drop(self._dataset, self._table)
        except MirrorError as error:
            _log.warning("%s; the turn to publish ends by itself", error)


class Journal:
    """The one unfinished plan of each dataset, as a file in the lake; and what became of a plan
    that another process than its own took to its end.
    """

    def __init__(self, lake: Storage) -> None:
        self._lake = lake
        self._folder = f"{lake.root}/journal"

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

    def plans(self) -> list[Plan]:
        """The unfinished plans of all datasets."""
        with self._lake.guard("journal"):
            names = self._lake.names(self._folder)
        found = [self.read(name.removesuffix(".json")) for name in names]
        return [plan for plan in found if plan is not None]

    def has(self, path: str) -> bool:
        """Whether a file of the lake is a plan."""
        return folder_of(path) == self._folder

    def leave_word(self, plan: Plan, fault: MirrorError | None) -> None:
        """For the process that wrote a plan, if it still lives: why it was given up, if it was."""
        told = {"given_up": fault.sentence if fault else None}
        with self._lake.guard(f"dataset {plan.dataset}"):
            self._lake.put({self._word(plan): json.dumps(told).encode()})

    def word(self, plan: Plan) -> dict[str, str | None] | None:
        """``{"given_up": why}``, or None where nobody has left word."""
        with self._lake.guard(f"dataset {plan.dataset}"):
            try:
                found: dict[str, str | None] = json.loads(self._lake.read(self._word(plan)))
            except FileNotFoundError:
                return None
            return found

    def _path(self, dataset: str) -> str:
        return f"{self._folder}/{dataset}.json"

    def _word(self, plan: Plan) -> str:
        return f"{self._lake.root}/word/{plan.token}.json"


class Carrier:
    """Carries out plans while it has the turn. ``promised`` are folders that a plan names which
    may be in the journal: nobody shall remove them.
    """

    def __init__(self, service_: Service, lake: Storage, turn: Turn, promised: set[str]) -> None:
        self._service = service_
        self._lake = lake
        self._journal = Journal(lake)
        self._turn = turn
        self._promised = promised

    def finish_left_over(self, dataset: str) -> tuple[Plan, MirrorError] | None:
        """Carry out what another writer has left. What can never be done is given up: that plan,
        and why. Raises PublicationPending.
        """
        plan = self._journal.read(dataset)
        if plan is None:
            return None
        _log.warning("dataset %s: finishing what an earlier run began to publish", dataset)
        try:
            fault = self._finish(plan, is_ours=False)
        except MirrorError as error:
            raise _pending(plan, error) from None
        if fault is None:
            return None
        _log.error("%s; what the earlier run began is given up", fault)
        return plan, fault

    def carry_out(self, plan: Plan) -> None:
        """Raises WarehouseRefused or WarehouseFault, then nothing is changed that readers see; and
        PublicationPending, then the next writer will finish it.
        """
        try:
            self._turn.prolong()
            self._stage(plan)
            self._turn.confirm()  # nobody else's plan may be overwritten
        except MirrorError:
            self.forget(plan)
            raise
        self._promised |= plan.folders
        try:
            self._journal.write(plan)
            fault = self._finish(plan, is_ours=True)
        except MirrorError as error:
            fault = self._settle(plan, error)
        self._promised -= plan.folders
        if fault is not None:
            raise fault

    def _settle(self, plan: Plan, interrupted: MirrorError) -> MirrorError | None:
        """Finish our plan after all, or find out what another writer has made of it."""
        _log.warning("%s; once more, to the end", interrupted)
        try:
            self._turn.take()
            left = self._journal.read(plan.dataset)
            if left is not None and left.token == plan.token:
                return self._finish(plan, is_ours=True)
            word = self._journal.word(plan)
        except MirrorError as error:
            raise _pending(plan, error) from None
        if word is None:  # it was never written down
            self.forget(plan)
            return interrupted
        why = word["given_up"]
        return WarehouseRefused(f"it was given up: {why}") if why else None

    def forget(self, plan: Plan) -> None:
        """Remove the control rows on their way of a plan that is not carried out: they are text of
        rows. The files of its tables are their publisher's.
        """
        self._clean_up(plan.staged, {folder_of(uri) for step in plan.staged for uri in step.uris})

    def _stage(self, plan: Plan) -> None:
        """Nobody sees these: control rows in tables of their own."""
        expires = service.soon(_WEEK)
        for step in plan.staged:
            self._service.create_table(step.dataset, step.table, step.fields, expires=expires)
        self._load(plan, plan.staged)

    def _finish(self, plan: Plan, *, is_ours: bool) -> MirrorError | None:
        """Carry a plan out, or give it up when that can never be done, and why. What it raises has
        left it in the journal.
        """
        fault: MirrorError | None = None
        try:
            self._change(plan)
        except Exception as error:
            fault = at_edge(error, f"dataset {plan.dataset}")
            if fault.transient and not isinstance(fault, RowsUnaccounted):
                raise fault from None
            self._drop(plan.new_names)
        if not is_ours:
            self._journal.leave_word(plan, fault)
        self._journal.remove(plan.dataset)
        if fault is None:
            # a plan that was taken up after its tables were renamed has made empty ones again
            self._clean_up([*plan.staged, *plan.new_names], plan.folders)
        else:
            self.forget(plan)
        return fault

    def _change(self, plan: Plan) -> None:
        """What readers see, step by step."""
        self._change_structure(plan)
        self._load(plan, plan.loads)
        self._drop(plan.emptied)
        self._rename(plan)
        self._move_views(plan)
        self._write_rows(plan)

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
                    for statement in step.statements:  # alone, each is done once or not at all
                        self._run([self._script(plan, f"columns of {where}", [statement])])
                    self._service.alter_fields(step.dataset, step.table, step.fields)
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

    def _rename(self, plan: Plan) -> None:
        for step in plan.renamed:
            self._turn.prolong()
            if self._service.table(step.dataset, step.new_name) is not None:
                continue  # done earlier: the name was free, or became so by the step before
            path = self._service.qualified(step.dataset, step.table)
            rename = f"ALTER TABLE {path} RENAME TO {name(step.new_name)}"
            about = f"name of {step.dataset}.{step.table}"
            self._run([self._script(plan, about, [rename])])

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
        return service.query(text, plan.dataset, about=about, key=plan.token, labels=labels)

    def _run(self, jobs: Sequence[Job]) -> list[Any]:
        return self._service.run(jobs, self._turn.prolong)

    def _clean_up(self, staged: Iterable[Loaded | Dropped], folders: Iterable[str]) -> None:
        """What cannot be removed now expires or is swept."""
        try:
            self._drop(Dropped(step.dataset, step.table) for step in staged)
            for folder in folders:
                with self._lake.guard("staged files"):
                    self._lake.delete_folder(folder)
        except MirrorError as error:
            _log.warning("%s; it is removed later", error)


def _pending(plan: Plan, error: MirrorError) -> PublicationPending:
    return PublicationPending(
        f"what was begun is not published to its end: {error.what}",
        where=f"dataset {plan.dataset}",
        remedy=f"nothing is lost: the next run finishes it first. {error.remedy}",
    )
