"""Real private servers in temporary folders."""

import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from mirror_assets.sample.servers import ADMIN, MariaDB, PostgreSQL, PrivateServer

ROOT = Path(__file__).parents[2]
DATABASE = "clinic_a"
OTHER_DATABASE = "clinicxa"  # the underscore of a grant pattern would match it


@pytest.fixture(scope="module", params=[MariaDB, PostgreSQL])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrivateServer]:
    # Longer than a unix socket's path may be.
    directory = tmp_path_factory.mktemp("server") / ("long" * 30)
    running: PrivateServer = request.param.start(directory)
    try:
        _fill(running)
        yield running
    finally:
        running.remove()


def _fill(server: PrivateServer) -> None:
    for database in (DATABASE, OTHER_DATABASE):
        server.create_database(database)
        _execute(server.url(database, ADMIN), "CREATE TABLE before_grant (id int)")
    server.create_reader(DATABASE)
    _execute(server.url(DATABASE, ADMIN), "CREATE TABLE after_grant (id int)")
    _execute(server.url(DATABASE, ADMIN), "INSERT INTO after_grant VALUES (7)")


def _execute(url: str, statement: str) -> list[tuple[object, ...]]:
    engine = sa.create_engine(url)
    try:
        with engine.begin() as connection:
            result = connection.execute(sa.text(statement))
            return [tuple(row) for row in result] if result.returns_rows else []
    finally:
        engine.dispose()


def test_starting_again_finds_the_running_instance(server: PrivateServer) -> None:
    again = type(server).start(server.directory)  # type: ignore[attr-defined]
    assert again.port == server.port
    assert again.running
    assert _execute(again.url(DATABASE), "SELECT id FROM after_grant") == [(7,)]


def test_a_restart_keeps_port_logins_and_data(server: PrivateServer) -> None:
    url = server.url(DATABASE)
    server.stop()
    assert not server.running
    server.stop()
    type(server).start(server.directory)  # type: ignore[attr-defined]
    assert server.running
    assert server.url(DATABASE) == url
    assert _execute(url, "SELECT id FROM after_grant") == [(7,)]


def test_creating_twice_changes_nothing(server: PrivateServer) -> None:
    server.create_database(DATABASE)
    server.create_reader(DATABASE)
    assert _execute(server.url(DATABASE), "SELECT count(*) FROM before_grant") == [(0,)]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO before_grant VALUES (1)",
        "UPDATE after_grant SET id = 8",
        "DELETE FROM after_grant",
        "DROP TABLE after_grant",
        "CREATE TABLE mine (id int)",
    ],
)
def test_the_reader_cannot_write(server: PrivateServer, statement: str) -> None:
    with pytest.raises(sa.exc.DBAPIError, match=r"denied|must be owner"):
        _execute(server.url(DATABASE), statement)


def test_the_reader_sees_its_own_database_only(server: PrivateServer) -> None:
    with pytest.raises(sa.exc.DBAPIError, match="denied"):
        _execute(server.url(OTHER_DATABASE), "SELECT * FROM before_grant")


def test_a_wrong_password_is_refused(server: PrivateServer) -> None:
    url = sa.make_url(server.url(DATABASE)).set(password="wrong")
    with pytest.raises(sa.exc.OperationalError):
        _execute(url.render_as_string(hide_password=False), "SELECT 1")


def test_passwords_are_for_the_owner_only_and_never_arguments(server: PrivateServer) -> None:
    files = list(server.directory.glob("*.password"))
    assert {file.name for file in files} == {"admin.password", "reader.password"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o400}
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    for file in files:
        assert not [line for line in commands if file.read_bytes() in line]
    assert not (server.directory / "logins.sql").exists()


@pytest.mark.parametrize("kind", [MariaDB, PostgreSQL])
def test_a_server_outlives_the_process_that_started_it(
    kind: type[MariaDB] | type[PostgreSQL], tmp_path: Path
) -> None:
    script = (
        "import sys; from pathlib import Path; from mirror_assets.sample import servers; "
        f"servers.{kind.__name__}.start(Path(sys.argv[1]))"
    )
    server = kind(tmp_path)
    try:
        subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, check=True)
        assert server.running
        server.admin().close()
    finally:
        server.remove()
    assert not server.running
    assert not tmp_path.exists()


def test_a_stale_pid_file_of_somebody_else_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "mariadb.pid").write_text("1\n")
    assert not MariaDB(tmp_path).running


@pytest.mark.parametrize(
    ("kind", "package"), [(MariaDB, "mariadb-server"), (PostgreSQL, "postgresql")]
)
def test_a_missing_program_names_its_package(
    kind: type[MariaDB] | type[PostgreSQL],
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(RuntimeError, match=f"install the Debian package {package}$"):
        kind.start(tmp_path)
    kind(tmp_path).remove()
