"""Private servers for the session, and a bench: a whole mirror in a temporary folder."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from psycopg2.extensions import parse_dsn

from mirror_assets.mirroring import refresh
from mirror_assets.mirroring.catalog import DatabaseSpec, TableSpec, load
from mirror_assets.mirroring.landing import ExportWriter, Landing
from mirror_assets.mirroring.mirror import MirrorRun
from mirror_assets.mirroring.names import sql
from mirror_assets.mirroring.schema import TableSchema
from mirror_assets.mirroring.scratch import remove_scratch
from mirror_assets.mirroring.sources import open_source
from mirror_assets.mirroring.sources.base import Snapshot, Source, TableState
from mirror_assets.mirroring.sources.mysql import MySQLSource
from mirror_assets.mirroring.staged import TableReport
from mirror_assets.mirroring.warehouses import Warehouse
from mirror_assets.sample import elation
from mirror_assets.sample.servers import MariaDB, PostgreSQL, PrivateServer
from mirror_assets.settings import Settings
from tests.fakes.cloud_storage import CloudStorage

SCALE = 0.01
Moment = Literal["before", "amid"]
Action = Callable[[], None]
Kind = Literal["mysql", "postgresql"]
KINDS: tuple[Kind, Kind] = ("mysql", "postgresql")
CATALOGS = ("sqlite", "postgres")  # of a lake
UTC_SESSION: dict[Kind, str] = {
    "mysql": "SET time_zone = '+00:00'",
    "postgresql": "SET TIME ZONE 'UTC'",
}
#: What a type is called on each kind of server.
WORDS: dict[str, dict[Kind, str]] = {
    "text": {"mysql": "longtext", "postgresql": "text"},
    "bytes": {"mysql": "longblob", "postgresql": "bytea"},
    "double": {"mysql": "double", "postgresql": "double precision"},
    "real": {"mysql": "float", "postgresql": "real"},
    "datetime": {"mysql": "datetime(6)", "postgresql": "timestamp"},
    "instant": {"mysql": "timestamp(6)", "postgresql": "timestamptz"},
}
LAKE_OWNER, LAKE_PASSWORD = "lake_owner", "it's 4711 % \\ secret"
_numbers = itertools.count(1)


#: Suites whose cases depend little on which of two servers they meet, by the parameter that says
#: which: `make test` runs each case on one of them, which by its name, and `make test-all` on both.
_ONE_OF_TWO: dict[str, tuple[tuple[str, str], set[str]]] = {
    "any_bench": (
        KINDS,
        {
            *("test_drift", "test_verify", "test_proof_account", "test_misfits", "test_discover"),
            "test_policies_and_time",
        },
    ),
    "lake_catalogs": (CATALOGS, {"test_ducklake", "test_ducklake_torture"}),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        chosen = getattr(item, "callspec", None)
        for name, (both, suites) in _ONE_OF_TWO.items():
            met = chosen and chosen.params.get(name)
            if met is None or item.path.stem not in suites:
                continue
            case = item.nodeid.replace(str(met), "")
            if zlib.crc32(case.encode()) % 2 != both.index(met):
                item.add_marker(pytest.mark.slow)


def utc_now() -> datetime:
    return datetime.now(UTC)


class Earlier:
    """A real source whose tables seem to have been created some time earlier."""

    def __init__(self, source: Source, by: timedelta) -> None:
        self._source = source
        self._by = by

    def states(self) -> dict[str, TableState]:
        return {name: self._shift(state) for name, state in self._source.states().items()}

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        with self._source.snapshot() as snapshot:
            yield _EarlierSnapshot(snapshot, self._shift)  # type: ignore[misc]

    def _shift(self, state: TableState) -> TableState:
        assert state.created_at is not None
        local = datetime.fromisoformat(state.info["create_time"]) - self._by
        return replace(
            state,
            created_at=state.created_at - self._by,
            info={**state.info, "create_time": local.isoformat(" ")},
        )


class _EarlierSnapshot:
    def __init__(self, snapshot: Snapshot, shift: Callable[[TableState], TableState]) -> None:
        self._snapshot = snapshot
        self._shift = shift

    def tables(self) -> dict[str, TableState]:
        return {name: self._shift(state) for name, state in self._snapshot.tables().items()}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._snapshot, name)


@contextmanager
def small_packets(bench: Bench) -> Iterator[None]:
    """The server computes no value longer than a megabyte."""
    [(before,)] = bench.ask("SELECT @@global.max_allowed_packet")
    bench.run("SET GLOBAL max_allowed_packet = 1048576")
    try:
        yield
    finally:
        bench.run(f"SET GLOBAL max_allowed_packet = {before}")


class Interrupted:
    """A real source, in whose reading of one table something happens at a chosen moment."""

    def __init__(self, source: Source, table: str, moment: Moment, action: Action) -> None:
        self._source = source
        self._table = table
        self._moment = moment
        self._action = action

    def states(self) -> dict[str, TableState]:
        return self._source.states()

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        with self._source.snapshot() as snapshot:
            real = snapshot.export

            def export(table: TableSpec, schema: TableSchema, writer: ExportWriter) -> int:
                if table.name == self._table and self._moment == "before":
                    self._action()
                elif table.name == self._table:
                    self._after_first_batch(writer)
                return real(table, schema, writer)

            snapshot.export = export  # type: ignore[method-assign]
            yield snapshot

    def _after_first_batch(self, writer: ExportWriter) -> None:
        real = writer.write

        def write(data: bytes, rows: int, longest: int) -> None:
            real(data, rows, longest)
            writer.write = real  # type: ignore[method-assign]
            self._action()

        writer.write = write  # type: ignore[method-assign]


ROOT = Path(__file__).parents[1]

_CHILD = """
import re, sys
from datetime import date
from mirror_assets.mirroring.mirror import MirrorRun
from mirror_assets.mirroring.sources import open_source
from mirror_assets.mirroring.scratch import remove_scratch
from mirror_assets.settings import Settings
from pathlib import Path
name, day, run_id = sys.argv[1], date.fromisoformat(sys.argv[2]), sys.argv[3]
settings = Settings.from_env()
spec = settings.database(name)
source = open_source(spec, settings.database_url(name))
scratch = settings.new_scratch()
bad = []
print("ready", flush=True)
sys.stdin.readline()
with MirrorRun(spec, source, settings.landing(), settings.warehouse(), partition=day,
               run_id=run_id, tables=spec.tables, scratch=scratch,
               memory=settings.memory) as run:
    for chunk in spec.chunks:
        bad += [str(report.error) for report in run.publish(chunk) if not report.published]
remove_scratch(scratch)
# the process's own peak: ru_maxrss is inherited from the parent
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print("peak", int(peak[1]) // 1024, flush=True)
sys.exit("; ".join(bad) or 0)
"""


def start(child: subprocess.Popen[str]) -> None:
    """Let a bench's child begin to mirror."""
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()


class Bench:
    """A schema of the server, a catalog over it, a landing zone, a lake and a warehouse."""

    def __init__(self, server: MariaDB, root: Path, schema: str, extensions: Path) -> None:
        self.server = server
        self.root = root
        self.schema = schema
        self._extensions = extensions
        self.catalogs = root / "catalogs"
        self.catalogs.mkdir(exist_ok=True)
        self.settings = self.settings_with()
        self.landing: Landing = self.settings.landing()
        self.warehouse: Warehouse = self.settings.warehouse()

    @property
    def url(self) -> str:
        return self.server.url(self.schema)

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a process that works on this bench."""
        return {
            "MIRROR_WAREHOUSE": f"ducklake:sqlite:{self.root}/lake.sqlite",
            "MIRROR_LAKE": str(self.root / "lake"),
            "MIRROR_LANDING": str(self.root / "landing"),
            "MIRROR_SCRATCH": str(self.root / "scratch"),
            "MIRROR_EXTENSIONS": str(self._extensions),
            "MIRROR_CATALOG_PATH": str(self.catalogs),
            "MIRROR_MEMORY": "256MB",
            "MIRROR_SETTLE_MINUTES": "0",
            "ELATION_DATABASE_URL": self.url,
            "CLINIC_DATABASE_URL": self.url,
        }

    def settings_with(self, **changed: str) -> Settings:
        return Settings.from_env(self.variables | changed)

    def close(self) -> None:
        self.warehouse.close()

    # -- the source

    def run(self, *statements: str) -> None:
        """Execute statements as the vendor."""
        with closing(self.server.admin(self.schema)) as admin, admin.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def ask(self, query: str, *arguments: object) -> list[tuple[Any, ...]]:
        with closing(self.server.admin(self.schema)) as admin, admin.cursor() as cursor:
            cursor.execute(query, arguments or None)
            return list(cursor.fetchall())

    def next_second(self) -> None:
        """Let every table created from now on have a CREATE_TIME of its own."""
        with closing(self.server.admin(self.schema)) as admin, admin.cursor() as cursor:
            elation._await_next_second(cursor, self.schema)

    def source(self, spec: DatabaseSpec, *, driver: str = "auto") -> MySQLSource:
        return MySQLSource(spec, self.url, driver=driver)

    def earlier(self, spec: DatabaseSpec, **by: float) -> Earlier:
        """The source as if its tables had been created ``by`` (a timedelta) earlier."""
        return Earlier(self.source(spec), timedelta(**by))

    def as_of(self, spec: DatabaseSpec, instant: datetime) -> Earlier:
        """The source as if the vendor's refresh had ended at ``instant``."""
        created = [state.created_at for state in self.source(spec).states().values()]
        return Earlier(self.source(spec), max(filter(None, created)) - instant)

    # -- the catalog

    def catalog(self, tables: Sequence[str] | dict[str, Any] | str, **fields: Any) -> DatabaseSpec:
        """A catalog file over the schema; its refresh rule is the vendor's, without waiting."""
        rule = {"rule": "vendor", "cron": "0 5 * * *", "settle_minutes": 0}
        listed = dict.fromkeys(tables) if isinstance(tables, list) else tables
        entry = {"database": "clinic", "kind": "mysql", "refresh": rule, "tables": listed} | fields
        path = self.catalogs / f"{entry['database']}.catalog.yaml"
        path.write_text(yaml.safe_dump(entry, allow_unicode=True), encoding="utf-8")
        return load(path)

    def elation(self, *only: str) -> DatabaseSpec:
        """The real catalog of Elation, without the wait after a refresh."""
        spec = self.settings.database("elation")
        kept = tuple(table for table in spec.tables if not only or table.name in only)
        return spec.model_copy(update={"tables": kept})

    def day(self, spec: DatabaseSpec, source: Source | None = None) -> date:
        """The partition that the source holds now."""
        states = (source or self.source(spec)).states()
        found = refresh.current(spec, states, utc_now()).day
        assert found is not None
        return found

    # -- a run

    def mirror_day(
        self,
        spec: DatabaseSpec,
        *tables: str,
        day: date | None = None,
        run_id: str | None = None,
        source: Source | None = None,
        warehouse: Warehouse | None = None,
        part_bytes: int | None = None,
        accept_volume: Sequence[str] = (),
        agree: Callable[[datetime], None] | None = None,
        clock: Callable[[], datetime] = utc_now,
        between: Action | None = None,
    ) -> dict[str, TableReport]:
        """One run over some tables (default: all) in one chunk; reports by table name.

        ``between`` is called when everything is copied and nothing is published yet.
        """
        chosen = [spec.table(name) for name in tables] or list(spec.tables)
        source = source or self.source(spec)
        landing = self.landing
        if part_bytes is not None:
            landing = Landing(
                self.settings.landing_url, self.settings.scratch, part_bytes=part_bytes
            )
        scratch = self.settings.new_scratch()
        run = MirrorRun(
            spec,
            source,
            landing,
            warehouse or self.warehouse,
            partition=day or self.day(spec, source),
            run_id=run_id or f"run-{next(_numbers)}",
            tables=chosen,
            scratch=scratch,
            memory=self.settings.memory,
            accept_volume=frozenset(accept_volume),
            agree=agree,
            clock=clock,
        )
        try:
            with run:
                if between is not None:
                    for staged in run._staged.values():
                        staged.result(60)
                    between()
                reports = run.publish(chosen)
        finally:
            remove_scratch(scratch)
        return {report.table.name: report for report in reports}

    # -- the warehouse

    def rows(self, table: str, columns: str = "*", *, where: str = "") -> list[tuple[Any, ...]]:
        """Rows of a table or view of the mirror, in the order of its first columns."""
        clause = f" WHERE {where}" if where else ""
        statement = f"SELECT {columns} FROM clinic_mirror.{sql(table)}{clause} ORDER BY ALL"
        return self.warehouse.query(statement).rows

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        return self.warehouse.query(statement).rows

    def errors(self, columns: str = '"table", resource, kind') -> list[tuple[Any, ...]]:
        """What the latest view of MIRROR_ERRORS shows."""
        return self.rows("MIRROR_ERRORS_latest", columns)

    def exported(self, table: str) -> bytes:
        """The bytes of a table's newest export."""
        manifests = sorted((self.root / "landing").glob(f"*/*/{table}_????????.manifest.json"))
        parts = yaml.safe_load(manifests[-1].read_text())["parts"]
        return b"".join((manifests[-1].parent / part["file"]).read_bytes() for part in parts)

    def child(self, day: date, run_id: str, name: str = "clinic") -> subprocess.Popen[str]:
        """A process that has loaded everything, and mirrors a whole database after ``start``."""
        process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, name, str(day), run_id],
            cwd=ROOT,
            env=os.environ | self.variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
        return process


class KindBench(Bench):
    """A bench over an empty database of either kind, live: read once a day at the snapshot.

    ``{word}`` in its statements is this kind's own word for a type (WORDS).
    """

    words: dict[str, str]

    def __init__(
        self, kind: Kind, server: PrivateServer, root: Path, schema: str, extensions: Path
    ) -> None:
        self.kind = kind
        self.words = {word: both[kind] for word, both in WORDS.items()}
        super().__init__(server, root, schema, extensions)  # type: ignore[arg-type]

    def quote(self, name: str) -> str:
        """An identifier for this server."""
        return "`" + name.replace("`", "``") + "`" if self.kind == "mysql" else sql(name)

    def run(self, *statements: str) -> None:
        super().run(*(self._spelled(statement) for statement in statements))

    def _spelled(self, statement: str) -> str:
        for word, own in self.words.items():
            statement = statement.replace(f"{{{word}}}", own)
        return statement

    def insert(self, table: str, *rows: Sequence[Any]) -> None:
        """Insert rows in a UTC session; the values go as parameters."""
        into = self.quote(table).replace("%", "%%")
        with closing(self.server.admin(self.schema)) as admin, admin.cursor() as cursor:
            cursor.execute(UTC_SESSION[self.kind])
            for row in rows:
                marks = ", ".join(["%s"] * len(row))
                cursor.execute(f"INSERT INTO {into} VALUES ({marks})", tuple(row))

    def source(self, spec: DatabaseSpec, **_: Any) -> Any:
        return open_source(spec, self.url)

    def catalog(self, tables: Sequence[str] | dict[str, Any] | str, **fields: Any) -> DatabaseSpec:
        live = {"kind": self.kind, "refresh": {"cron": "0 5 * * *"}}
        return super().catalog(tables, **live | fields)

    def day(self, spec: DatabaseSpec, source: Source | None = None) -> date:
        return utc_now().date()


@pytest.fixture(scope="session")
def maria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    server = MariaDB.start(tmp_path_factory.mktemp("maria"))
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    server = PostgreSQL.start(tmp_path_factory.mktemp("postgres"))
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def cloud_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudStorage]:
    """A Cloud Storage emulator that this process's clients find; take a bucket of your own."""
    storage = CloudStorage(tmp_path_factory.mktemp("cloud-storage"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in storage.variables.items():
            patch.setenv(name, value)
        yield storage
    storage.stop()


@dataclass(frozen=True)
class LakeCatalog:
    """Where a lake's catalog is, the password it asks for, and its files."""

    url: str
    password: str | None
    folder: Path
    server: PostgreSQL | None = None

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a process that works on it."""
        if self.password is None:
            return {"MIRROR_WAREHOUSE": self.url}
        file = self.folder / "catalog.password"
        file.touch(mode=0o600)
        file.write_text(self.password)
        return {"MIRROR_WAREHOUSE": self.url, "MIRROR_WAREHOUSE_PASSWORD_FILE": str(file)}

    def bytes(self) -> bytes:
        """All that its files hold."""
        files = self.folder
        if self.server is not None:
            name = parse_dsn(self.url.removeprefix("ducklake:postgres:"))["dbname"]
            with closing(self.server.admin(name)) as admin, admin.cursor() as cursor:
                cursor.execute("CHECKPOINT")
                cursor.execute(
                    "SELECT current_setting('data_directory') || '/base/' || oid"
                    " FROM pg_database WHERE datname = current_database()"
                )
                files = Path(cursor.fetchall()[0][0])
        return b"".join(path.read_bytes() for path in files.rglob("*") if path.is_file())


class LakeCatalogs:
    """Makes empty catalogs: below a folder, or in a database of the server."""

    def __init__(self, server: PostgreSQL | None) -> None:
        self._server = server
        self._databases: dict[str, str] = {}
        if server is not None:
            with closing(server.admin()) as admin, admin.cursor() as cursor:
                cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", (LAKE_OWNER,))
                if not cursor.fetchall():  # it owns catalogs, and has no other right
                    cursor.execute(f"CREATE ROLE {LAKE_OWNER} LOGIN PASSWORD %s", (LAKE_PASSWORD,))

    def empty(self, folder: Path, use: str) -> LakeCatalog:
        """An empty catalog; it empties the last one that was made for the same ``use``."""
        if self._server is None:
            return LakeCatalog(f"ducklake:sqlite:{folder}/catalog.sqlite", None, folder)
        name = self._databases.get(use)
        if name is None:
            name = self._databases[use] = f"lake_{next(_numbers)}"
            with closing(self._server.admin()) as admin, admin.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {name} OWNER {LAKE_OWNER}")
        with closing(self._server.admin(name)) as admin, admin.cursor() as cursor:
            cursor.execute("DROP SCHEMA public CASCADE")
            cursor.execute("CREATE SCHEMA public AUTHORIZATION pg_database_owner")
        address = f"host={self._server.host} port={self._server.port}"
        url = f"ducklake:postgres:{address} dbname={name} user={LAKE_OWNER}"
        return LakeCatalog(url, LAKE_PASSWORD, folder, self._server)


@pytest.fixture(scope="module", params=CATALOGS)
def lake_catalogs(request: pytest.FixtureRequest) -> LakeCatalogs:
    """Makes lakes' catalogs, once of each kind."""
    in_postgres = request.param == "postgres"
    return LakeCatalogs(request.getfixturevalue("postgres") if in_postgres else None)


@pytest.fixture
def lake_catalog(lake_catalogs: LakeCatalogs, tmp_path: Path) -> LakeCatalog:
    """An empty catalog, once of each kind."""
    return lake_catalogs.empty(tmp_path / "lake", "test")


@contextmanager
def kind_bench(
    kind: Kind, server: PrivateServer, root: Path, extensions: Path
) -> Iterator[KindBench]:
    """A bench over an empty database of its own."""
    schema = f"any_{next(_numbers)}"
    server.create_database(schema)
    server.create_reader(schema)
    made = KindBench(kind, server, root, schema, extensions)
    try:
        yield made
    finally:
        made.close()
        end = "WITH (FORCE)" if kind == "postgresql" else ""
        with closing(server.admin()) as admin, admin.cursor() as cursor:  # type: ignore[attr-defined]
            cursor.execute(f"DROP DATABASE {schema} {end}")


@pytest.fixture(params=KINDS)
def any_bench(
    request: pytest.FixtureRequest, tmp_path: Path, extensions: Path
) -> Iterator[KindBench]:
    """A bench over an empty database, once of each kind."""
    server = request.getfixturevalue("maria" if request.param == "mysql" else "postgres")
    with kind_bench(request.param, server, tmp_path, extensions) as made:
        yield made


@pytest.fixture
def pg_bench(postgres: PostgreSQL, tmp_path: Path, extensions: Path) -> Iterator[KindBench]:
    """A bench over an empty PostgreSQL database."""
    with kind_bench("postgresql", postgres, tmp_path, extensions) as made:
        yield made


@pytest.fixture(scope="session")
def elation_schema(maria: MariaDB) -> str:
    """A sample Elation database that no test changes."""
    elation.create(maria, schema="elation_sample", scale=SCALE)
    return "elation_sample"


@pytest.fixture(scope="session")
def extensions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("extensions")


@pytest.fixture
def bench(maria: MariaDB, tmp_path: Path, extensions: Path) -> Iterator[Bench]:
    """A bench over an empty schema of its own."""
    schema = f"clinic_{next(_numbers)}"
    maria.create_database(schema)
    maria.create_reader(schema)
    made = Bench(maria, tmp_path, schema, extensions)
    try:
        yield made
    finally:
        made.close()
        made.run(f"DROP DATABASE `{schema}`")


@pytest.fixture(scope="module")
def module_bench(
    maria: MariaDB, tmp_path_factory: pytest.TempPathFactory, extensions: Path
) -> Iterator[Bench]:
    """A bench that the tests of one module share."""
    schema = f"clinic_{next(_numbers)}"
    maria.create_database(schema)
    maria.create_reader(schema)
    made = Bench(maria, tmp_path_factory.mktemp("bench"), schema, extensions)
    try:
        yield made
    finally:
        made.close()
        made.run(f"DROP DATABASE `{schema}`")


@pytest.fixture
def sample(
    maria: MariaDB, elation_schema: str, tmp_path: Path, extensions: Path
) -> Iterator[Bench]:
    """A bench over the unchanging sample Elation database."""
    made = Bench(maria, tmp_path, elation_schema, extensions)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def vendor(maria: MariaDB, tmp_path: Path, extensions: Path) -> Iterator[Bench]:
    """A bench over a sample Elation database of its own, for refreshing."""
    schema = f"vendor_{next(_numbers)}"
    elation.create(maria, schema=schema, scale=SCALE)
    made = Bench(maria, tmp_path, schema, extensions)
    try:
        yield made
    finally:
        made.close()
        made.run(f"DROP DATABASE `{schema}`")


@pytest.fixture
def private_server(tmp_path: Path) -> Iterator[MariaDB]:
    """A server of the test's own, to be stopped or set up otherwise."""
    server = MariaDB.start(tmp_path / "own-server")
    try:
        yield server
    finally:
        server.remove()
