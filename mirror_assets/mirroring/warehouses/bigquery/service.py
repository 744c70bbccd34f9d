"""The requests we make of BigQuery. Each is tried again while that helps, and done once in effect.

A job's id is a digest of what it does. When its answer is lost, or a killed process's work is taken
up again, the service says that it knows the id, and the job is waited for instead of run twice.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any, Literal

from mirror_assets.mirroring.errors import MirrorError, WarehouseRefused
from mirror_assets.mirroring.warehouses.base import Rows
from mirror_assets.mirroring.warehouses.bigquery import faults, sql
from mirror_assets.mirroring.warehouses.bigquery.fields import Field
from mirror_assets.mirroring.warehouses.bigquery.plan import OWN

#: Attempts at a job that BigQuery accepted and then failed for a passing reason.
_ATTEMPTS = 4
_SLOWEST_POLL = 2.0
_REQUEST_SECONDS = 120.0
_LOCAL = re.compile(r"http://(127\.0\.0\.1|localhost)(:\d+)?")


@dataclass(frozen=True)
class Job:
    """A load or a query in a dataset. ``about`` says what it does, ``key`` tells it from the same
    job of another day; ``configuration`` is the API's.
    """

    kind: Literal["load", "query"]
    about: str
    key: str
    configuration: dict[str, Any]
    dataset: str
    labels: dict[str, str] = field(default_factory=dict)

    def id(self, attempt: int) -> str:
        text = json.dumps([self.key, self.kind, self.configuration], sort_keys=True)
        return f"mirror_{hashlib.sha256(text.encode()).hexdigest()[:40]}_{attempt}"


class Service:
    """BigQuery for one project. ``endpoint`` is another address than Google's; one on this machine
    gets no credentials.
    """

    def __init__(
        self, project: str, *, location: str | None, endpoint: str | None, patience: float = 300.0
    ) -> None:
        self.project = project
        self.location = location
        self._endpoint = endpoint
        self._patience = patience
        self._ensured: set[str] = set()
        #: Whether the service is a private one of this machine.
        self.is_local = is_local(endpoint)

    @cached_property
    def client(self) -> Any:
        """Google's client. Raises WarehouseRefused without credentials."""
        from google.api_core.client_options import ClientOptions  # here: slow to import
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import bigquery

        with faults.own(f"project {self.project}"):
            return bigquery.Client(
                project=self.project,
                location=self.location,
                credentials=AnonymousCredentials() if self.is_local else None,  # type: ignore[no-untyped-call]
                client_options=ClientOptions(api_endpoint=self._endpoint),
            )

    @cached_property
    def retry(self) -> Any:
        """How long and how often a request is sent again."""
        from google.api_core.retry import Retry

        return Retry(
            predicate=faults.is_transient, initial=0.2, maximum=20.0, timeout=self._patience
        )

    @cached_property
    def _options(self) -> dict[str, Any]:
        return {"retry": self.retry, "timeout": _REQUEST_SECONDS}

    def close(self) -> None:
        if "client" in self.__dict__:
            self.client.close()
            del self.client

    # -- datasets and tables

    def ensure_dataset(self, dataset: str) -> None:
        """Create a dataset where there is none; its tables' names do not tell case apart."""
        from google.cloud import bigquery

        if dataset in self._ensured:
            return
        made = bigquery.Dataset(f"{self.project}.{dataset}")
        if self.location is not None:  # the service has a default of its own
            made.location = self.location
        made.is_case_insensitive = True
        made.labels = labels_of(dataset)
        made.description = "Made and kept by mirror_assets"
        with faults.own(f"dataset {dataset}"):
            self.client.create_dataset(made, exists_ok=True, **self._options)
        self._ensured.add(dataset)

    def dataset(self, dataset: str) -> Any:
        """A dataset's description; None where there is none."""
        return self._found(lambda: self.client.get_dataset(dataset, **self._options), dataset)

    def keep_for(self, dataset: str, hours: int) -> bool:
        """How long a dataset remembers what its tables were; whether that was changed."""
        found = self.dataset(dataset)
        if found is None or str(found.max_time_travel_hours or 168) == str(hours):
            return False
        from google.cloud import bigquery

        # the client's own setter sends a number, where the API has a text
        stated = found.to_api_repr() | {"maxTimeTravelHours": str(hours)}
        changed = bigquery.Dataset.from_api_repr(stated)
        with faults.own(f"dataset {dataset}"):
            self.client.update_dataset(changed, ["max_time_travel_hours"], **self._options)
        return True

    def forget(self, dataset: str) -> None:
        """Somebody has removed a dataset."""
        self._ensured.discard(dataset)

    def is_mine(self, dataset: str) -> bool:
        """Whether we made a dataset."""
        found = self.dataset(dataset)
        return found is not None and found.labels.get("made_by") == "mirror_assets"

    def datasets(self) -> list[str]:
        with faults.own(f"project {self.project}"):
            return [item.dataset_id for item in self.client.list_datasets(**self._options)]

    def table(self, dataset: str, table: str) -> Any:
        """A table or view; None where there is none."""
        name = f"{self.project}.{dataset}.{table}"
        return self._found(lambda: self.client.get_table(name, **self._options), name)

    def tables(self, dataset: str) -> dict[str, bool]:
        """Every table and view of a dataset but our own temporary ones, and whether it is a table
        with partitions.
        """
        name = f"{self.project}.{dataset}"
        listed = self._found(lambda: list(self.client.list_tables(name, **self._options)), name)
        return {
            item.table_id: item.table_type == "TABLE" and item.time_partitioning is not None
            for item in listed or ()
            if not item.table_id.startswith(OWN)
        }

    def create_table(
        self,
        dataset: str,
        table: str,
        fields: Sequence[Field],
        *,
        partitioned: bool = False,
        expires: datetime | None = None,
    ) -> None:
        """Create a table, unless it is there."""
        from google.cloud import bigquery

        made = bigquery.Table(
            f"{self.project}.{dataset}.{table}",
            schema=[bigquery.SchemaField.from_api_repr(f) for f in fields],
        )
        made.labels = labels_of(dataset)
        if expires:
            made.expires = expires
        if partitioned:
            made.time_partitioning = bigquery.TimePartitioning()
        with faults.own(f"table {dataset}.{table}"):
            self.client.create_table(made, exists_ok=True, **self._options)

    def alter_fields(self, dataset: str, table: str, fields: Sequence[Field]) -> None:
        """Add and relax columns."""
        from google.cloud import bigquery

        changed = bigquery.Table(
            f"{self.project}.{dataset}.{table}",
            schema=[bigquery.SchemaField.from_api_repr(f) for f in fields],
        )
        with faults.own(f"table {dataset}.{table}"):
            self.client.update_table(changed, ["schema"], **self._options)

    def claim(self, dataset: str, table: str, token: str, expires: datetime) -> bool:
        """Create an empty temporary table; False when it is there already."""
        from google.api_core.exceptions import Conflict
        from google.cloud import bigquery

        made = bigquery.Table(f"{self.project}.{dataset}.{table}")
        made.description, made.expires = token, expires
        with faults.own(f"dataset {dataset}"):
            try:
                self.client.create_table(made, **self._options)
            except Conflict:
                return False
        return True

    def probe(self, dataset: str) -> None:
        """Create and remove a temporary table. Raises WarehouseRefused without the right to."""
        own = f"{OWN}probe_{secrets.token_hex(4)}"
        self.claim(dataset, own, "", soon(60.0))
        self.drop(dataset, own)

    def prolong(self, dataset: str, table: str, expires: datetime) -> str | None:
        """Give a temporary table more time; the token that it was claimed with, None when it is
        gone.
        """
        from google.cloud import bigquery

        changed = bigquery.Table(f"{self.project}.{dataset}.{table}")
        changed.expires = expires
        ask = partial(self.client.update_table, changed, ["expires"], **self._options)
        found = self._found(ask, f"dataset {dataset}")
        return found.description if found else None

    def drop(self, dataset: str, table: str) -> None:
        """Remove a table or view, or with ``table$day`` the rows of a day, if it is there."""
        with faults.own(f"table {dataset}.{table}"):
            name = f"{self.project}.{dataset}.{table}"
            self.client.delete_table(name, not_found_ok=True, **self._options)

    def _found(self, ask: Callable[[], Any], where: str) -> Any:
        from google.api_core.exceptions import NotFound

        with faults.own(where):
            try:
                return ask()
            except NotFound:
                return None

    # -- jobs

    def run(self, jobs: Sequence[Job], meanwhile: Callable[[], None] = lambda: None) -> list[Any]:
        """Run jobs side by side; the finished ones, in order. ``meanwhile`` is called while they
        are waited for. All that were started are waited for before the first one's error is raised.
        """
        running: list[tuple[Job, Any, int]] = []
        ended: list[Any] = []
        failed: list[MirrorError] = []
        for job in jobs:
            try:
                meanwhile()
                running.append((job, *self._start(job, 0)))
            except MirrorError as error:
                failed.append(error)
                break
        for job, handle, attempt in running:
            try:
                ended.append(self._finish(job, handle, attempt, meanwhile))
            except MirrorError as error:
                failed.append(error)
        if failed:
            raise min(failed, key=lambda error: error.transient)
        return ended

    def _start(self, job: Job, attempt: int) -> tuple[Any, int]:
        """Begin a job, or find it where it was accepted earlier; attempts that failed for a passing
        reason do not count.
        """
        from google.api_core.exceptions import Conflict

        with faults.own(job.about):
            while True:
                try:
                    return self._insert(job, attempt), attempt
                except Conflict:
                    handle = self._job(job.id(attempt), self._place_of(job.dataset))
                if not _has_passed(handle, job):
                    return handle, attempt
                attempt += 1

    def _insert(self, job: Job, attempt: int) -> Any:
        from google.cloud import bigquery

        configuration = {job.kind: job.configuration, "labels": job.labels}
        known = {"job_id": job.id(attempt), **self._options}
        if job.kind == "query":
            options = bigquery.QueryJobConfig.from_api_repr(configuration)
            text = job.configuration["query"]
            return self.client.query(text, options, job_retry=None, **known)
        load = bigquery.LoadJobConfig.from_api_repr(configuration)
        target = bigquery.TableReference.from_api_repr(job.configuration["destinationTable"])
        uris = job.configuration["sourceUris"]
        return self.client.load_table_from_uri(uris, target, job_config=load, **known)

    def _place_of(self, dataset: str) -> str | None:
        """Where the jobs of a dataset are: without it, the service looks in the US and EU only."""
        if self.location is None:
            found = self.dataset(dataset)
            return found.location if found else None
        return self.location

    def _job(self, job_id: str, location: str | None) -> Any:
        return self.client.get_job(job_id, location=location, **self._options)

    def _finish(self, job: Job, handle: Any, attempt: int, meanwhile: Callable[[], None]) -> Any:
        for left in reversed(range(_ATTEMPTS)):
            pause = 0.05
            while handle.state != "DONE":
                meanwhile()
                time.sleep(pause)
                pause = min(pause * 1.5, _SLOWEST_POLL)
                with faults.own(job.about):
                    handle = self._job(handle.job_id, handle.location)
            if not handle.error_result:
                break
            if not left or not _has_passed(handle, job):
                raise faults.of_job(handle.error_result, job.about)
            handle, attempt = self._start(job, attempt + 1)
        return handle

    # -- reading

    def rows(self, text: str, *, about: str, limit: int | None = None) -> Rows:
        """The answer of a query in BigQuery's own SQL."""
        answer = self._ask(text, about, limit)
        with faults.own(about):
            found = [row.values() for row in answer]
        return Rows(tuple(field.name for field in answer.schema), found)

    def stream(self, text: str, *, about: str) -> tuple[list[Field], Iterator[Any]]:
        """The fields of an answer, and its Arrow record batches page by page."""
        answer = self._ask(text, about, None)

        def pages() -> Iterator[Any]:
            with faults.own(about):
                yield from answer.to_arrow_iterable()

        return [field.to_api_repr() for field in answer.schema], pages()

    def _ask(self, text: str, about: str, limit: int | None) -> Any:
        from google.cloud import bigquery

        labels = labels_of(*sql.datasets(text)) | {"mirror": "read"}
        options = bigquery.QueryJobConfig(use_legacy_sql=False, labels=labels)
        with faults.own(about):
            return self.client.query_and_wait(
                text, job_config=options, max_results=limit, retry=self.retry, job_retry=self.retry
            )

    def try_out(self, text: str) -> tuple[str, int]:
        """What kind of statement a text is and the bytes that it would read; nothing is run.

        The service's message is passed on: it read no row, so it can quote none.
        """
        from google.api_core.exceptions import BadRequest
        from google.cloud import bigquery

        options = bigquery.QueryJobConfig(use_legacy_sql=False, dry_run=True)
        with faults.own("query"):
            try:
                job = self.client.query(text, options, job_retry=None, **self._options)
            except BadRequest as error:
                said = (error.errors[0] if error.errors else {}).get("message", "invalid query")
                raise WarehouseRefused(
                    f"BigQuery refused: {said.splitlines()[0]}",
                    remedy="write one SELECT over the warehouse's tables",
                ) from None
            return job.statement_type or "", int(job.total_bytes_processed or 0)

    def qualified(self, dataset: str, table: str) -> str:
        return sql.path(self.project, dataset, table)


def _has_passed(handle: Any, job: Job) -> bool:
    """Whether a job has failed for a reason that another attempt may not meet."""
    if handle.state != "DONE" or not handle.error_result:
        return False
    return faults.of_job(handle.error_result, job.about).transient


def query(text: str, dataset: str, *, about: str, key: str, labels: Mapping[str, str]) -> Job:
    """A statement or a script over a dataset."""
    return Job("query", about, key, {"query": text, "useLegacySql": False}, dataset, dict(labels))


def load(
    project: str,
    dataset: str,
    table: str,
    fields: Sequence[Field],
    uris: Sequence[str],
    *,
    about: str,
    key: str,
    labels: Mapping[str, str],
) -> Job:
    """Parquet files as the rows of a table, or with ``table$day`` of a day.

    The schema is stated, because DuckDB's files call every column optional. What the table says of
    its columns besides, descriptions and policy tags, stays.
    """
    told = ("name", "type", "mode", "precision", "scale", "fields")
    configuration = {
        "destinationTable": {"projectId": project, "datasetId": dataset, "tableId": table},
        "sourceUris": list(uris),
        "sourceFormat": "PARQUET",
        "schema": {"fields": [{k: v for k, v in f.items() if k in told} for f in fields]},
        "writeDisposition": "WRITE_TRUNCATE_DATA",
        "createDisposition": "CREATE_NEVER",
        "parquetOptions": {"enableListInference": True},
    }
    return Job("load", about, key, configuration, dataset, dict(labels))


def is_local(endpoint: str | None) -> bool:
    """Whether an endpoint is a private service of this machine, which gets no credentials."""
    return bool(endpoint and _LOCAL.fullmatch(endpoint))


def labels_of(*datasets: str) -> dict[str, str]:
    """Labels by which costs are told apart; values are lower-case words of at most 63 letters."""
    said = datasets[0] if len(datasets) == 1 else "several" if datasets else "none"
    value = re.sub(r"[^a-z0-9_-]", "_", said.lower())[:63]
    return {"made_by": "mirror_assets", "mirror_dataset": value}


def soon(seconds: float) -> datetime:
    """An instant from now on."""
    return datetime.fromtimestamp(time.time() + seconds, UTC)
