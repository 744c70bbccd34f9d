"""The measured tables, built inside the servers and kept from one run to the next."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

from sqlalchemy.engine import make_url

from benchmarks.config import ROOT, TABLE_ROWS, TABLES
from mirror_assets.sample import elation
from mirror_assets.sample.generator import PHRASES
from mirror_assets.sample.servers import ADMIN, MariaDB, PostgreSQL, PrivateServer

BIG = elation.BIG_TABLE
WIDE = f"wide_{TABLES}x{TABLE_ROWS}"
WIDE_TABLES = [f"t_{n:03}" for n in range(TABLES)]
SERVERS = {"mysql": MariaDB, "postgresql": PostgreSQL}


@cache
def server(kind: str) -> PrivateServer:
    """The private server of a kind, started when it is first needed."""
    return SERVERS[kind].start(ROOT / kind)  # type: ignore[attr-defined,no-any-return]


def stop() -> None:
    """Stop all servers; the next who asks for one starts it again."""
    server.cache_clear()
    for kind, kind_of in SERVERS.items():
        kind_of(ROOT / kind).stop()


def big(kind: str, rows: int) -> str:
    """The database that holds the big table with so many rows."""
    name = f"big_{rows}"
    host = server(kind)
    if _holds(host, name, BIG):
        return name
    print(f"building {rows:,} rows ({kind})", flush=True)
    if isinstance(host, MariaDB):
        elation.big_table(host, schema=name, rows=rows)
    else:
        _big_postgres(host, name, rows)
    return name


def drop_big(kind: str, rows: int) -> None:
    with closing(server(kind).admin()) as connection, connection.cursor() as cursor:  # type: ignore[attr-defined]
        cursor.execute(f"DROP DATABASE IF EXISTS big_{rows}")


def wide() -> str:
    """The MySQL schema of many small tables."""
    host = server("mysql")
    if not _holds(host, WIDE, WIDE_TABLES[-1]):
        elation.wide_schema(host, schema=WIDE, tables=TABLES, rows=TABLE_ROWS)
    return WIDE


def plain_url(kind: str, database: str, user: str = "reader") -> str:
    """A server's address without a SQLAlchemy driver."""
    return str(server(kind).url(database, user)).replace("+pymysql", "").replace("+psycopg2", "")


@contextmanager
def mysql_options(folder: Path) -> Iterator[Path]:
    """An option file with the administrator's login: no password on a command line."""
    url = make_url(plain_url("mysql", "mysql", ADMIN))
    path = folder / "mydumper.cnf"
    path.touch(mode=0o600)
    login = {"host": url.host, "port": url.port, "user": url.username, "password": url.password}
    lines = "\n".join(f"{name}={value}" for name, value in login.items())
    path.write_text(f"[client]\n{lines}\n[mydumper]\n{lines}\n")
    try:
        yield path
    finally:
        path.unlink()


def _holds(host: PrivateServer, database: str, table: str) -> bool:
    """Whether the table is there with its rows, which come in one transaction."""
    try:
        with closing(host.admin(database)) as connection, connection.cursor() as cursor:  # type: ignore[attr-defined]
            cursor.execute(f"SELECT id FROM {table} LIMIT 1")
            return cursor.fetchone() is not None
    except Exception:  # no such database, no such table: whatever the driver calls it
        return False


def _big_postgres(host: PrivateServer, name: str, rows: int) -> None:
    host.create_database(name)
    phrases = ". ".join(PHRASES).replace(",", ";").replace("'", "''")
    statements: Sequence[str] = (
        f"DROP TABLE IF EXISTS {BIG}",
        f"CREATE UNLOGGED TABLE {BIG} ({_COLUMNS})",
        f"INSERT INTO {BIG} SELECT {_VALUES.format(text=phrases)} "
        f"FROM generate_series(1, {rows}) s",
        f"VACUUM (FREEZE, ANALYZE) {BIG}",
    )
    with closing(host.admin(name)) as connection, connection.cursor() as cursor:  # type: ignore[attr-defined]
        for statement in statements:
            cursor.execute(statement)
    host.create_reader(name)


_COLUMNS = """
    id bigint NOT NULL PRIMARY KEY, visit_note_id bigint NOT NULL, parent_bullet_id bigint,
    category varchar(50) NOT NULL, sequence int NOT NULL, text text NOT NULL, units numeric(10,2),
    document_date date NOT NULL, creation_time timestamp NOT NULL, deleted_date timestamp,
    is_signed boolean
"""
#: The values of the sample's MySQL table, in PostgreSQL's words.
_VALUES = """
    140700000000000 + s, 140700000000000 + s / 8,
    CASE WHEN s % 3 > 0 THEN 140700000000000 + s - s % 3 END,
    (ARRAY['Reason', 'HPI', 'Med', 'Plan'])[1 + s % 4], s % 8,
    CASE WHEN s % 50 = 0 THEN E'Says "better", señora 🙂\\n' ELSE '' END
        || substring('{text}', (1 + s::bigint * 7 % 400)::int, 120 + s % 55),
    CASE WHEN s % 5 > 0 THEN s % 1000 / 4.0 END,
    date '2019-01-01' + s % 900, timestamp '2019-01-01' + s % 1000000 * interval '1 minute',
    CASE WHEN s % 33 = 0 THEN timestamp '2019-01-02' + s % 1000000 * interval '1 minute' END,
    CASE WHEN s % 10 > 0 THEN s % 2 = 1 END
"""
