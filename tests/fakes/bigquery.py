"""A local double of BigQuery's REST surface, as far as we use it; it executes on DuckDB.

Every request is judged by Google's own discovery document. Datasets, tables with partitions by
ingestion day, views, load jobs of Parquet files, scripts, row answers in pages, dry runs.

It refuses what the service refuses: instants outside the years 1 to 9999 and NULL in a required
column fail the whole load, so do other types, modes or columns than the table's; files of different
schemas behind one wildcard; a job id that was used; added columns that are required; columns that
would be narrowed.

Its limits: one project, no permissions, quotas or costs (bytes of a dry run are those of the rows
that DuckDB estimates); jobs are done when they are accepted; SQL is what sqlglot translates;
expired tables are gone at once; ALTER TABLE knows what DuckDB's does. Only the real service proves
those, and that it reads Parquet as we think: benchmarks/bigquery_acceptance.py.
"""

from __future__ import annotations

import base64
import json
import re
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import sqlglot
from sqlglot import exp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mirror_assets.mirroring.storage import lake
from tests.fakes.google import Discovery, serve

DAY = "_PARTITIONDATE"
PAGE = 400
_LEGACY = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN", "STRUCT": "RECORD"}
_DUCK = {
    "INTEGER": "BIGINT",
    "FLOAT": "DOUBLE",
    "BOOLEAN": "BOOLEAN",
    "STRING": "VARCHAR",
    "BYTES": "BLOB",
    "DATE": "DATE",
    "DATETIME": "TIMESTAMP",
    "TIMESTAMP": "TIMESTAMPTZ",
    "TIME": "TIME",
    "JSON": "JSON",
}
_NAMES = {duck: name for name, duck in _DUCK.items()} | {
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP",
    "HUGEINT": "INTEGER",
    "UBIGINT": "INTEGER",
    "INTEGER": "INTEGER",
    "SMALLINT": "INTEGER",
    "UINTEGER": "INTEGER",
    "FLOAT": "FLOAT",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Field = dict[str, Any]


class Refused(Exception):  # noqa: N818 - it is an answer
    """An answer with an error; or in a job, the error it ends with."""

    def __init__(self, status: int, reason: str, message: str, location: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.error = {"reason": reason, "message": message, "location": location}


@dataclass
class Table:
    """A table or view: its description as the API gives it."""

    resource: dict[str, Any]

    @property
    def fields(self) -> list[Field]:
        return self.resource.setdefault("schema", {}).setdefault("fields", [])

    @property
    def partitioned(self) -> bool:
        """By ingestion day, not by a column."""
        return "field" not in self.resource.get("timePartitioning", {"field": ""})

    @property
    def expired(self) -> bool:
        return int(self.resource.get("expirationTime", 1 << 62)) < time.time() * 1000


@dataclass
class Fault:
    """What happens to the next requests that match: ``(verb, path)`` and ``times``.

    ``lost`` requests are carried out, and answered by the error nevertheless. ``in_job`` errors are
    those of the job that the request starts, of whose script ``done`` statements are carried out,
    but never the last.
    """

    verb: str
    path: str
    status: int
    reason: str = "backendError"
    times: int = 1
    lost: bool = False
    in_job: bool = False
    body: str = ""
    done: int = 0


@dataclass
class BigQuery:
    """One project. ``wrong`` are requests that the discovery document refuses; ``requests`` all
    that came, with their bodies.
    """

    project: str = "a-project"
    datasets: dict[str, dict[str, Any]] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    dies_after: int | None = None
    url: str = ""

    def __post_init__(self) -> None:
        self.duck = duckdb.connect()
        self.duck.execute("SET TimeZone = 'UTC'")
        self.tables: dict[tuple[str, str], Table] = {}
        self._answers: dict[str, tuple[list[Field], list[tuple[Any, ...]]]] = {}
        self._discovery = Discovery("bigquery.v2")
        self._lock = threading.Lock()
        self._changes = 0

    def clear(self) -> None:
        """Forget everything that is stored."""
        for name in list(self.datasets):
            self._delete_dataset(name, {"deleteContents": "true"})
        self.jobs.clear(), self._answers.clear(), self.requests.clear(), self.loads.clear()
        self.faults.clear(), self.wrong.clear()
        self.dies_after, self._changes = None, 0

    # -- HTTP

    def asgi(self) -> Starlette:
        methods = ["GET", "POST", "PATCH", "PUT", "DELETE"]

        async def handle(request: Request) -> Response:
            body = await request.body()
            with self._lock:
                return self._handle(request, body)

        return Starlette(routes=[Route("/{path:path}", handle, methods=methods)])

    def _handle(self, request: Request, body: bytes) -> Response:
        path, verb = request.url.path, request.method
        # Google's client sends a projection of jobs, which Google's document does not know
        listed = request.query_params.multi_items()
        query = [pair for pair in listed if pair != ("projection", "full")]
        self.requests.append((verb, path, body.decode()))
        wrong = self._discovery.faults(verb, path, query, body)
        if wrong:
            self.wrong.append(f"{verb} {path}: {wrong}")
            return _error(Refused(400, "invalid", wrong))
        if self.dies_after is not None and self._changes >= self.dies_after:
            return _error(Refused(503, "backendError", "the process is dead"))
        fault = self._fault(verb, path, body.decode())
        if fault and not fault.lost and not fault.in_job:
            return _error(Refused(fault.status, fault.reason, "canary-text"))
        try:
            answer = self._answer(verb, path, dict(query), json.loads(body or b"null"), fault)
        except Refused as error:
            return _error(error)
        except Exception as error:  # a fault of the double's own, which nobody shall try again
            self.wrong.append(f"{verb} {path}: {traceback.format_exc()}")
            return _error(Refused(400, "invalid", repr(error)))
        if verb != "GET" and not path.endswith("/queries"):
            self._changes += 1
        if fault and fault.lost:
            return _error(Refused(fault.status, fault.reason, "canary-text"))
        return JSONResponse(answer) if answer is not None else Response(status_code=204)

    def _fault(self, verb: str, path: str, body: str) -> Fault | None:
        for fault in self.faults:
            if fault.verb == verb and re.search(fault.path, path) and fault.body in body:
                fault.times -= 1
                if fault.times <= 0:
                    self.faults.remove(fault)
                return fault
        return None

    def _answer(
        self, verb: str, path: str, query: dict[str, str], body: Any, fault: Fault | None
    ) -> Any:
        parts = path.removeprefix("/bigquery/v2/projects/").split("/")
        if parts[0] != self.project:
            raise Refused(403, "accessDenied", f"Access Denied: Project {parts[0]}")
        match verb, parts[1:]:
            case "POST", ["jobs"]:
                return self._insert_job(body, fault)
            case "GET", ["jobs", job]:
                return self._placed_job(job, query.get("location", ""))
            case "POST", ["queries"]:
                return self._query(body)
            case "GET", ["queries", job]:
                return self._page(job, query)
            case "POST", ["datasets"]:
                return self._insert_dataset(body)
            case "GET", ["datasets"]:
                kept = ("datasetReference", "labels", "location")
                listed = [{k: d[k] for k in kept if k in d} for d in self.datasets.values()]
                return {"datasets": listed}
            case "GET", ["datasets", dataset]:
                return self._dataset(dataset)
            case "PATCH", ["datasets", dataset]:
                self._dataset(dataset).update(body)
                return self._dataset(dataset)
            case "DELETE", ["datasets", dataset]:
                return self._delete_dataset(dataset, query)
            case "POST", ["datasets", dataset, "tables"]:
                return self._insert_table(dataset, body)
            case "GET", ["datasets", dataset, "tables"]:
                return self._list_tables(dataset, query)
            case "GET", ["datasets", dataset, "tables", table]:
                return self._table(dataset, table).resource
            case "PATCH", ["datasets", dataset, "tables", table]:
                return self._patch_table(dataset, table, body)
            case "DELETE", ["datasets", dataset, "tables", table]:
                return self._delete_table(dataset, table)
        raise Refused(404, "notFound", f"{verb} {path}")

    # -- datasets

    def _dataset(self, name: str) -> dict[str, Any]:
        if name not in self.datasets:
            raise Refused(404, "notFound", f"Not found: Dataset {self.project}:{name}")
        return self.datasets[name]

    def _insert_dataset(self, body: dict[str, Any]) -> dict[str, Any]:
        name = body["datasetReference"]["datasetId"]
        if not re.fullmatch(r"\w{1,1024}", name):
            raise Refused(400, "invalid", f"Invalid dataset ID {name}")
        if name in self.datasets:
            raise Refused(409, "duplicate", f"Already Exists: Dataset {self.project}:{name}")
        self.datasets[name] = {"location": "US", **body, "id": f"{self.project}:{name}"}
        self.duck.execute(f"CREATE SCHEMA {_q(name)}")
        return self.datasets[name]

    def _delete_dataset(self, name: str, query: dict[str, str]) -> None:
        self._dataset(name)
        mine = [key for key in self.tables if key[0] == name]
        if mine and query.get("deleteContents") != "true":
            raise Refused(400, "resourceInUse", f"Dataset {name} is still in use")
        self.duck.execute(f"DROP SCHEMA {_q(name)} CASCADE")
        for key in mine:
            del self.tables[key]
        del self.datasets[name]

    # -- tables

    def _key(self, dataset: str, table: str) -> tuple[str, str]:
        """The name that a table was made under, where the dataset does not tell case apart."""
        if self._dataset(dataset).get("isCaseInsensitive"):
            for key in self.tables:
                if key[0] == dataset and key[1].lower() == table.lower():
                    return key
        return dataset, table

    def _table(self, dataset: str, table: str) -> Table:
        key = self._key(dataset, table.partition("$")[0])
        found = self.tables.get(key)
        if found is not None and found.expired:
            self._forget(key)
            found = None
        if found is None:
            raise Refused(404, "notFound", f"Not found: Table {self.project}:{dataset}.{table}")
        return found

    def _insert_table(self, dataset: str, body: dict[str, Any]) -> dict[str, Any]:
        name = body["tableReference"]["tableId"]
        key = self._key(dataset, name)
        if key in self.tables and not self.tables[key].expired:
            raise Refused(
                409, "duplicate", f"Already Exists: Table {self.project}:{dataset}.{name}"
            )
        if key in self.tables:
            self._forget(key)
        table = Table({**body, "type": "TABLE"})
        table.fields[:] = [_normal(f) for f in table.fields]
        self._create(dataset, name, table)
        return table.resource

    def _create(self, dataset: str, name: str, table: Table) -> None:
        columns = [
            f"{_q(f['name'])} {_duck_type(f)}{' NOT NULL' * (f['mode'] == 'REQUIRED')}"
            for f in table.fields
        ]
        columns += [f"{DAY} DATE"] * (table.partitioned or not columns)
        self.duck.execute(f"CREATE TABLE {_q(dataset)}.{_q(name)} ({', '.join(columns)})")
        self.tables[dataset, name] = table

    def _list_tables(self, dataset: str, query: dict[str, str]) -> dict[str, Any]:
        self._dataset(dataset)
        names = sorted(n for d, n in list(self.tables) if d == dataset)
        names = [n for n in names if not self.tables[dataset, n].expired]
        first = int(query.get("pageToken") or 0)
        kept = ("tableReference", "type", "timePartitioning", "labels", "expirationTime")
        some = names[first : first + 20]
        answer: dict[str, Any] = {
            "tables": [
                {k: v for k, v in self.tables[dataset, n].resource.items() if k in kept}
                for n in some
            ],
            "totalItems": len(names),
        }
        if first + 20 < len(names):
            answer["nextPageToken"] = str(first + 20)
        return answer

    def _patch_table(self, dataset: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        table = self._table(dataset, name)
        if "schema" in body:
            fields = [_normal(f) for f in body["schema"]["fields"]]
            self._adopt(dataset, name, table, fields, added=True, relaxed=True)
            for given in fields:
                told = {k: given[k] for k in ("description", "policyTags") if k in given}
                _field(table, given["name"]).update(told)
        for key, value in body.items():
            if key not in ("schema", "tableReference", "labels"):
                table.resource[key] = value
        return table.resource

    def _adopt(
        self,
        dataset: str,
        name: str,
        table: Table,
        fields: Sequence[Field],
        *,
        added: bool,
        relaxed: bool,
    ) -> None:
        """Let a table follow a schema that was given, as far as that is allowed."""

        def no(why: str) -> Refused:
            return Refused(
                *(400, "invalid"),
                f"Provided Schema does not match Table {self.project}:{dataset}.{name}. {why}",
            )

        held = {f["name"].lower(): f for f in table.fields}
        path = f"{_q(dataset)}.{_q(self._key(dataset, name.partition('$')[0])[1])}"
        lost = held.keys() - {f["name"].lower() for f in fields}
        if lost and added is relaxed is True:
            raise no(f"Field {min(lost)} is missing in new schema")
        required = [n for n in lost if held[n]["mode"] == "REQUIRED"]
        if required:
            raise no(f"Required field {required[0]} is missing")
        statements = []
        changes: list[Callable[[], None]] = []
        for new in fields:
            old = held.get(new["name"].lower())
            if old is None:
                if not added:
                    raise no(f"Cannot add fields (field: {new['name']})")
                if new["mode"] == "REQUIRED":
                    raise no(f"Cannot add required fields to an existing schema ({new['name']})")
                statements.append(f"ADD COLUMN {_q(new['name'])} {_duck_type(new)}")
                changes.append(lambda new=new: table.fields.append(new))  # type: ignore[misc]
                continue
            if _duck_type(old) != _duck_type(new):
                raise no(f"Field {new['name']} has changed type")
            if old["mode"] != new["mode"]:
                if (old["mode"], new["mode"]) != ("REQUIRED", "NULLABLE") or not relaxed:
                    raise no(
                        f"Field {new['name']} has changed mode from {old['mode']} to {new['mode']}"
                    )
                statements.append(f"ALTER COLUMN {_q(old['name'])} DROP NOT NULL")
                changes.append(lambda old=old: old.update(mode="NULLABLE"))  # type: ignore[misc]
        for statement in statements:
            self.duck.execute(f"ALTER TABLE {path} {statement}")
        for change in changes:
            change()

    def _delete_table(self, dataset: str, name: str) -> None:
        table = self._table(dataset, name)
        base, _, day = name.partition("$")
        key = self._key(dataset, base)
        if day:
            if not table.partitioned:
                raise Refused(400, "invalid", f"Table {base} is not partitioned")
            self.duck.execute(
                f"DELETE FROM {_q(dataset)}.{_q(key[1])} WHERE {DAY} = DATE '{_iso(day)}'"
            )
            return
        self._forget(key)

    def _forget(self, key: tuple[str, str]) -> None:
        word = "VIEW" if self.tables[key].resource["type"] == "VIEW" else "TABLE"
        self.duck.execute(f"DROP {word} {_q(key[0])}.{_q(key[1])}")
        del self.tables[key]

    # -- jobs

    def _insert_job(self, body: dict[str, Any], fault: Fault | None) -> dict[str, Any]:
        configuration = body["configuration"]
        if configuration.get("dryRun"):
            return self._dry_run(body)
        job_id = body["jobReference"]["jobId"]
        if job_id in self.jobs:
            raise Refused(409, "duplicate", f"Already Exists: Job {self.project}:US.{job_id}")
        reference = {"projectId": self.project, "jobId": job_id, "location": self._region()}
        job: dict[str, Any] = {
            "jobReference": reference,
            "configuration": configuration,
            "statistics": {"creationTime": str(int(time.time() * 1000))},
            "status": {"state": "DONE"},
        }
        try:
            if fault and fault.in_job:
                if "query" in configuration:
                    self._script(configuration["query"]["query"], upto=fault.done)
                raise Refused(fault.status, fault.reason, "canary-text")
            if "load" in configuration:
                job["statistics"]["load"] = self._load(configuration["load"])
            else:
                job["statistics"]["query"] = {"statementType": "SCRIPT"}
                self._answers[job_id] = self._script(configuration["query"]["query"])
        except Refused as error:
            job["status"] |= {"errorResult": error.error, "errors": [error.error]}
        self.jobs[job_id] = job
        return job

    def _region(self) -> str:
        """Where the datasets are; one double's are all in one place."""
        return next((str(d["location"]) for d in self.datasets.values()), "US")

    def _placed_job(self, job_id: str, location: str) -> dict[str, Any]:
        """Without a location, jobs of the US and EU are found and no others."""
        found = self._job(job_id)
        where = found["jobReference"]["location"]
        if location.upper() != where.upper() and (location or where not in ("US", "EU")):
            raise Refused(404, "notFound", f"Not found: Job {self.project}:{job_id}")
        return found

    def _job(self, job_id: str) -> dict[str, Any]:
        if job_id not in self.jobs:
            raise Refused(404, "notFound", f"Not found: Job {self.project}:{job_id}")
        return self.jobs[job_id]

    def _dry_run(self, body: dict[str, Any]) -> dict[str, Any]:
        text = body["configuration"]["query"]["query"]
        trees = _parsed(text)
        kind = "SCRIPT"
        if len(trees) == 1:
            query = isinstance(trees[0], exp.Query)
            kind = "SELECT" if query else type(trees[0]).__name__.upper()
        rows = 0
        if kind == "SELECT":
            self._duck(f"EXPLAIN {self._translated(trees[0])}")
            sources = self._duck(f"SELECT count(*) FROM ({self._translated(trees[0])})")
            rows = sources.fetchone()[0]
        size = str(8 * rows)
        return {
            "jobReference": {"projectId": self.project, "location": "US"},
            "configuration": body["configuration"],
            "status": {"state": "DONE"},
            "statistics": {
                "totalBytesProcessed": size,
                "query": {"statementType": kind, "totalBytesProcessed": size},
            },
        }

    # -- loads

    def _load(self, load: dict[str, Any]) -> dict[str, Any]:
        target = load["destinationTable"]
        dataset, (name, _, day) = target["datasetId"], target["tableId"].partition("$")
        table = self._table(dataset, name)
        self.loads.append(f"{dataset}.{target['tableId']}")
        with tempfile.TemporaryDirectory() as folder:
            files = self._fetched(load["sourceUris"], Path(folder))
            given = load.get("schema", {}).get("fields")
            fields = [_normal(f) for f in given] if given else _of_parquet(files[0])
            updates = load.get("schemaUpdateOptions", [])
            self._adopt(
                dataset,
                name,
                table,
                fields,
                added="ALLOW_FIELD_ADDITION" in updates,
                relaxed="ALLOW_FIELD_RELAXATION" in updates,
            )
            return self._replace(dataset, name, day, table, fields, files, load)

    def _fetched(self, uris: Sequence[str], folder: Path) -> list[Path]:
        """The files of Cloud Storage's emulator; a path of this machine stands for itself."""
        found: list[Path] = []
        for uri in uris:
            fs, path = lake(uri).fs, uri
            paths = sorted(fs.glob(path)) if "*" in path else [path]
            group = []
            for each in paths:
                copy = folder / f"{len(found) + len(group)}.parquet"
                try:
                    copy.write_bytes(fs.cat_file(each))
                except FileNotFoundError:
                    raise Refused(404, "notFound", f"Not found: URI {uri}") from None
                group.append(copy)
            if not group:
                raise Refused(404, "notFound", f"Not found: URI {uri}")
            if len({str(pq.read_schema(copy).remove_metadata()) for copy in group}) > 1:
                raise Refused(400, "invalid", f"Schemas differ behind {uri}")
            found += group
        return found

    def _replace(
        self,
        dataset: str,
        name: str,
        day: str,
        table: Table,
        fields: Sequence[Field],
        files: Sequence[Path],
        load: dict[str, Any],
    ) -> dict[str, Any]:
        path = f"{_q(dataset)}.{_q(self._key(dataset, name)[1])}"
        if day and not table.partitioned:
            raise Refused(400, "invalid", f"Table {name} is not partitioned")
        rows = 0
        self.duck.execute("BEGIN")
        try:
            if load.get("writeDisposition") in ("WRITE_TRUNCATE", "WRITE_TRUNCATE_DATA"):
                where = f" WHERE {DAY} = DATE '{_iso(day)}'" if day else ""
                self.duck.execute(f"DELETE FROM {path}{where}")
            for file in files:
                rows += self._insert(path, file, fields, day if table.partitioned else "")
            self.duck.execute("COMMIT")
        except duckdb.Error as error:
            self.duck.execute("ROLLBACK")
            raise Refused(400, "invalid", f"canary: {error}", "file") from None
        except Refused:
            self.duck.execute("ROLLBACK")
            raise
        return {"outputRows": str(rows), "inputFiles": str(len(files))}

    def _insert(self, path: str, file: Path, fields: Sequence[Field], day: str) -> int:
        known = {f["name"].lower(): f for f in fields}
        schema = pq.read_schema(file)
        source = f"read_parquet('{file}', hive_partitioning = false)"
        names, values = [], []
        for column in schema:
            wanted = known.get(column.name.lower())
            if wanted is None:
                raise Refused(400, "invalid", f"No such field: {column.name}")
            _check_type(column, wanted)
            names.append(_q(column.name))
            value = _q(column.name)
            if wanted["mode"] == "REPEATED":
                value = f"coalesce({value}, [])"
            values.append(f"CAST({value} AS {_duck_type(wanted)})")
            if wanted["type"] in ("DATETIME", "TIMESTAMP", "DATE"):
                bad = f"{_q(column.name)} NOT BETWEEN '0001-01-01' AND '9999-12-31 23:59:59.999999'"
                if wanted["type"] == "DATE":
                    bad = f"year({_q(column.name)}) NOT BETWEEN 1 AND 9999"
                (out,) = self._duck(f"SELECT count(*) FROM {source} WHERE {bad}").fetchone()
                if out:
                    raise Refused(400, "invalid", f"canary: {column.name} is out of range", "file")
        if day:
            names.append(DAY)
            values.append(f"DATE '{_iso(day)}'")
        done = self.duck.execute(
            f"INSERT INTO {path} ({', '.join(names)}) SELECT {', '.join(values)} FROM {source}"
        )
        return int((done.fetchone() or (0,))[0])

    # -- queries

    def _query(self, body: dict[str, Any]) -> dict[str, Any]:
        job_id = f"job_{len(self.jobs)}_{len(self._answers)}"
        options = body.get("formatOptions", {})
        if not options.get("useInt64Timestamp"):
            raise Refused(400, "invalid", "the double answers in exact microseconds only")
        self._answers[job_id] = self._script(body["query"])
        reference = {"projectId": self.project, "jobId": job_id, "location": "US"}
        self.jobs[job_id] = {
            "jobReference": reference,
            "configuration": {"query": {"query": body["query"]}, "labels": body.get("labels")},
            "status": {"state": "DONE"},
            "statistics": {},
        }
        return self._page(job_id, {"maxResults": str(body.get("maxResults") or PAGE)})

    def _page(self, job_id: str, query: dict[str, str]) -> dict[str, Any]:
        self._job(job_id)
        fields, rows = self._answers[job_id]
        first = int(query.get("pageToken") or query.get("startIndex") or 0)
        size = min(int(query.get("maxResults") or PAGE), PAGE)
        some = rows[first : first + size]
        answer: dict[str, Any] = {
            "jobReference": self.jobs[job_id]["jobReference"],
            "jobComplete": True,
            "schema": {"fields": fields},
            "totalRows": str(len(rows)),
            "rows": [_row(row, fields) for row in some],
            "cacheHit": False,
        }
        if first + size < len(rows):
            answer["pageToken"] = str(first + size)
        return answer

    def _script(
        self, text: str, *, upto: int | None = None
    ) -> tuple[list[Field], list[tuple[Any, ...]]]:
        """Execute statements; the answer of the last one. ``upto`` is where a script breaks."""
        answer: tuple[list[Field], list[tuple[Any, ...]]] = ([], [])
        is_open = False
        try:
            trees = _parsed(text)
            for tree in trees if upto is None else trees[:-1][:upto]:
                is_open = isinstance(tree, exp.Transaction) or (
                    is_open and not isinstance(tree, exp.Commit)
                )
                answer = self._execute(tree)
        except BaseException:
            if is_open:
                self.duck.execute("ROLLBACK")
            raise
        if is_open:  # it broke
            self.duck.execute("ROLLBACK")
        return answer

    def _execute(self, tree: exp.Expr) -> tuple[list[Field], list[tuple[Any, ...]]]:
        if isinstance(tree, exp.Query):
            relation = self._duck(self._translated(tree))
            fields = [
                _field_of_duck(str(name), kind) for name, kind, *_rest in relation.description or ()
            ]
            if any(f["name"].upper().startswith("_PARTITION") for f in fields):
                raise Refused(400, "invalidQuery", "Invalid field name: a reserved prefix", "query")
            return fields, relation.fetchall()
        if isinstance(tree, exp.Create) and tree.kind == "VIEW":
            self._create_view(tree)
        elif isinstance(tree, exp.Alter):
            self._alter(tree)
        elif isinstance(tree, (exp.Insert, exp.Delete, exp.Update)):
            self._duck(self._translated(tree))
        elif isinstance(tree, (exp.Transaction, exp.Commit)):
            self.duck.execute(tree.sql("duckdb"))
        else:
            raise Refused(400, "invalidQuery", f"the double has no {type(tree).__name__}")
        return [], []

    def _create_view(self, tree: exp.Create) -> None:
        dataset, name = tree.this.db, tree.this.name
        key = self._key(dataset, name)
        statement = tree.expression.sql("bigquery")
        body = self._translated(tree.expression)
        self._duck(f"CREATE OR REPLACE VIEW {_q(dataset)}.{_q(name)} AS {body}")
        reference = {"projectId": self.project, "datasetId": dataset, "tableId": name}
        described = self.duck.execute(f"FROM {_q(dataset)}.{_q(name)} LIMIT 0").description or ()
        fields = [_field_of_duck(str(column), kind) for column, kind, *_rest in described]
        self.tables.pop(key, None)
        self.tables[dataset, name] = Table(
            {
                "tableReference": reference,
                "type": "VIEW",
                "view": {"query": statement, "useLegacySql": False},
                "schema": {"fields": fields},
            }
        )

    def _alter(self, tree: exp.Alter) -> None:
        dataset, name = tree.this.db, tree.this.name
        table = self._table(dataset, name)
        key = self._key(dataset, name)
        (action,) = tree.args["actions"]
        self._duck(self._translated(tree))
        if isinstance(action, exp.AlterRename):
            new = action.this.name
            if self._key(dataset, new) in self.tables:
                raise Refused(409, "duplicate", f"Already Exists: Table {new}")
            del self.tables[key]
            table.resource["tableReference"]["tableId"] = new
            self.tables[dataset, new] = table
        elif isinstance(action, exp.RenameColumn):
            old, new = action.this.name, action.args["to"].name
            _field(table, old)["name"] = new
        else:
            field = _field(table, action.this.name)
            wanted = action.args["dtype"].sql("bigquery")
            new_field = _normal(_parsed_type(wanted) | {"name": field["name"]})
            if not _widens(field, new_field):
                raise Refused(400, "invalidQuery", f"ALTER TABLE requires that {wanted} is wider")
            field.pop("precision", None), field.pop("scale", None)
            field |= {k: v for k, v in new_field.items() if k != "mode"}

    def _duck(self, text: str) -> Any:
        try:
            return self.duck.execute(text)
        except duckdb.Error as error:
            missing = isinstance(error, duckdb.CatalogException)
            reason, status = ("notFound", 404) if missing else ("invalidQuery", 400)
            raise Refused(status, reason, f"canary: {error}", "query") from None

    def _translated(self, tree: exp.Expr) -> str:
        tree = tree.copy()
        common = {cte.alias for cte in tree.find_all(exp.CTE)}
        for table in list(tree.find_all(exp.Table)):
            if not table.db and table.name in common:
                continue
            if isinstance(table.parent, exp.AlterRename):
                continue
            self._place(table)
        for select in tree.find_all(exp.Select):
            self._hide_days(select)
        return tree.sql("duckdb")

    def _place(self, table: exp.Table) -> None:
        if not table.db:
            raise Refused(400, "invalid", f'Table "{table.name}" must be qualified with a dataset')
        if table.catalog not in ("", self.project):
            raise Refused(403, "accessDenied", f"Access Denied: Project {table.catalog}")
        if table.name.startswith("INFORMATION_SCHEMA."):
            name = table.name.partition(".")[2].lower()
            self._inform(table.db)
            table.set("this", exp.to_identifier(f"_{name}", quoted=True))
            table.set("db", exp.to_identifier("main"))
            table.set("catalog", None)
            return
        key = self._key(table.db, table.name)
        if not isinstance(table.find_ancestor(exp.Create), exp.Create) or key in self.tables:
            self._table(table.db, table.name)
        table.set("this", exp.to_identifier(key[1], quoted=True))
        table.set("catalog", None)

    def _inform(self, dataset: str) -> None:
        self.duck.execute(
            "CREATE OR REPLACE TABLE main._tables (table_name VARCHAR, table_type VARCHAR);"
            "CREATE OR REPLACE TABLE main._columns (table_name VARCHAR, column_name VARCHAR,"
            " ordinal_position BIGINT, is_nullable VARCHAR, data_type VARCHAR, is_hidden VARCHAR)"
        )
        for (where, name), table in self.tables.items():
            if where != dataset:
                continue
            kind = "BASE TABLE" if table.resource["type"] == "TABLE" else "VIEW"
            self.duck.execute("INSERT INTO main._tables VALUES (?, ?)", [name, kind])
            rows = [
                (name, f["name"], i, "NO" if f["mode"] == "REQUIRED" else "YES", _sql_type(f), "NO")
                for i, f in enumerate(table.fields, 1)
            ]
            if table.partitioned:
                rows.append((name, "_PARTITIONTIME", None, "YES", "TIMESTAMP", "YES"))  # type: ignore[arg-type]
            for row in rows:
                self.duck.execute("INSERT INTO main._columns VALUES (?, ?, ?, ?, ?, ?)", row)

    def _hide_days(self, select: exp.Select) -> None:
        """``*`` does not name the day of a partitioned table."""
        sources = [select.args.get("from_"), *select.args.get("joins", ())]
        tables = [s.this for s in sources if s is not None and isinstance(s.this, exp.Table)]
        held = [t for t in tables if self.tables.get((t.db, t.name)) is not None]
        days = {t.alias_or_name for t in held if self.tables[t.db, t.name].partitioned}
        for star in list(select.expressions):
            inner = star.this if isinstance(star, exp.Column) else star
            if not isinstance(inner, exp.Star):
                continue
            if days and (not isinstance(star, exp.Column) or star.table in days):
                inner.set("except_", [exp.to_identifier(DAY)])


@contextmanager
def bigquery(project: str = "a-project") -> Iterator[BigQuery]:
    """A running double; ``url`` is its address."""
    double = BigQuery(project)
    with serve(double.asgi()) as url:
        double.url = url
        yield double
    double.duck.close()


def _error(refused: Refused) -> Response:
    error = {
        "code": refused.status,
        "message": refused.error["message"],
        "errors": [refused.error],
        "status": "CANARY",
    }
    return JSONResponse({"error": error}, refused.status)


def _parsed(text: str) -> list[exp.Expr]:
    try:
        return [tree for tree in sqlglot.parse(text, read="bigquery") if tree is not None]
    except sqlglot.errors.SqlglotError as error:
        first = str(error).splitlines()[0]
        raise Refused(400, "invalidQuery", f"Syntax error: {first}", "query") from None


def _q(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _iso(day: str) -> str:
    if not re.fullmatch(r"\d{8}", day):
        raise Refused(400, "invalid", f"Invalid partition {day}")
    return str(date(int(day[:4]), int(day[4:6]), int(day[6:])))


# -- types


def _normal(field: Field) -> Field:
    """A field as the service answers it."""
    name = field["type"].upper()
    result = {**field, "type": _LEGACY.get(name, name), "mode": field.get("mode") or "NULLABLE"}
    if "fields" in field:
        result["fields"] = [_normal(inner) for inner in field["fields"]]
    if result.get("scale") in ("0", 0):
        del result["scale"]
    return result


def _duck_type(field: Field) -> str:
    kind = field["type"]
    if kind == "RECORD":
        inner = ", ".join(f"{_q(f['name'])} {_duck_type(f)}" for f in field["fields"])
        text = f"STRUCT({inner})"
    elif kind in ("NUMERIC", "BIGNUMERIC"):
        default = (38, 9) if kind == "NUMERIC" else (38, 18)
        precision = int(field.get("precision") or default[0])
        scale = int(field.get("scale") or (0 if "precision" in field else default[1]))
        text = f"DECIMAL({precision},{scale})"
    else:
        text = _DUCK[kind]
    return text + "[]" * (field["mode"] == "REPEATED")


def _sql_type(field: Field) -> str:
    back = {legacy: name for name, legacy in _LEGACY.items()}
    name = back.get(field["type"], field["type"])
    if "precision" in field:
        scale = f", {field['scale']}" if int(field.get("scale") or 0) else ""
        name = f"{name}({field['precision']}{scale})"
    if field["type"] == "RECORD":
        name = f"STRUCT<{', '.join(f['name'] + ' ' + _sql_type(f) for f in field['fields'])}>"
    return f"ARRAY<{name}>" if field["mode"] == "REPEATED" else name


def _parsed_type(text: str) -> Field:
    name, _, rest = text.partition("(")
    if not rest:
        return {"type": name}
    precision, _, scale = rest.rstrip(")").partition(",")
    return {"type": name, "precision": precision.strip(), "scale": scale.strip() or "0"}


def _widens(old: Field, new: Field) -> bool:
    """The service's table of coercions: INT64 to NUMERIC, NUMERIC to BIGNUMERIC, more digits."""

    def digits(field: Field) -> tuple[int, int]:
        if field["type"] == "INTEGER":
            return 19, 0
        scale = int(field.get("scale") or 0)
        return int(field["precision"]) - scale, scale

    order = ["INTEGER", "NUMERIC", "BIGNUMERIC"]
    if old["type"] not in order or new["type"] not in order[order.index(old["type"]) :]:
        return False
    return all(a <= b for a, b in zip(digits(old), digits(new), strict=True))


def _field(table: Table, name: str) -> Field:
    return next(f for f in table.fields if f["name"].lower() == name.lower())


def _field_of_duck(name: str, kind: Any) -> Field:
    """The field of an answer: its decimals have no precision, as the service's have none."""
    kind_id = kind.id
    if kind_id == "list":
        return _field_of_duck(name, kind.children[0][1]) | {"mode": "REPEATED"}
    if kind_id == "struct":
        inner = [_field_of_duck(n, k) for n, k in kind.children]
        return {"name": name, "type": "RECORD", "mode": "NULLABLE", "fields": inner}
    if kind_id == "decimal":
        (_p, precision), (_s, scale) = kind.children
        is_numeric = scale <= 9 and precision - scale <= 29
        return {
            "name": name,
            "type": "NUMERIC" if is_numeric else "BIGNUMERIC",
            "mode": "NULLABLE",
        }
    return {"name": name, "type": _NAMES.get(str(kind), "STRING"), "mode": "NULLABLE"}


def _of_parquet(file: Path) -> list[Field]:
    """Autodetection: every optional column is nullable."""
    described = duckdb.connect().execute(f"DESCRIBE FROM read_parquet('{file}')").fetchall()
    return [
        {"name": name, "type": _NAMES[kind], "mode": "NULLABLE"} for name, kind, *_ in described
    ]


_FITS = {
    "INTEGER": r"u?int\d+",
    "FLOAT": "double|float|u?int32",
    "BOOLEAN": "bool",
    "STRING": "string|large_string",
    "BYTES": "binary|large_binary",
    "DATE": "date32.*",
    "DATETIME": r"timestamp\[us\]",
    "TIMESTAMP": r"timestamp\[us, tz=.+\]",
    "NUMERIC": "decimal.*|u?int.*",
    "BIGNUMERIC": "decimal.*|u?int.*",
    "RECORD": "struct.*",
}


def _check_type(column: Any, wanted: Field) -> None:
    kind = column.type.value_type if wanted["mode"] == "REPEATED" else column.type
    if not re.fullmatch(_FITS[wanted["type"]], str(kind), re.DOTALL):
        raise Refused(
            *(400, "invalid"),
            f"Parquet column '{column.name}' has type {kind} which does not match {wanted['type']}",
        )


# -- values


def _row(values: Sequence[Any], fields: Sequence[Field]) -> dict[str, Any]:
    return {"f": [{"v": _value(v, f)} for v, f in zip(values, fields, strict=True)]}


def _value(value: Any, field: Field) -> Any:
    if field["mode"] == "REPEATED":
        single = {**field, "mode": "NULLABLE"}
        return [{"v": _value(item, single)} for item in value or ()]
    if value is None:
        return None
    match field["type"]:
        case "RECORD":
            return _row([value[f["name"]] for f in field["fields"]], field["fields"])
        case "BOOLEAN":
            return str(value).lower()
        case "FLOAT":
            text = repr(float(value))
            return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(text, text)
        case "BYTES":
            return base64.b64encode(value).decode()
        case "DATETIME":
            return value.isoformat()
        case "TIMESTAMP":
            return str((value.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1))
    return str(value)
