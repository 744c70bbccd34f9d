"""Everything that the environment can say, over all parts: checked at once, and documented.

``python -m mirror_assets.configuration`` writes the README's table and ``.env.example``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

from mirror_assets.commons import cache_settings
from mirror_assets.elation import firewall
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import MirrorError
from mirror_assets.settings import Settings, alerts, backups, connections, environment, reading

Variables = Mapping[str, tuple[str, str]]
#: The parts that read the environment, in the order of the documents: title, variables.
PARTS: tuple[tuple[str, Variables], ...] = (
    ("the mirrors, and what they and their readers share", environment.VARIABLES),
    ("databases behind an SSH host", connections.VARIABLES),
    ("databases that are read from a restored backup", backups.VARIABLES),
    ("tables that a database's application exports as files", reading.VARIABLES),
    ("Commons' encounter cache", cache_settings.VARIABLES),
    ("the App Engine firewall", firewall.VARIABLES),
    ("alerts", alerts.VARIABLES),
)
#: After it, in the README, stands the table.
MARK = "<!-- settings: written by `python -m mirror_assets.configuration` -->\n"


def variables() -> dict[str, tuple[str, str]]:
    """Every variable of every part: default, meaning."""
    return {name: about for _title, part in PARTS for name, about in part.items()}


def check(environ: Mapping[str, str] | None = None) -> tuple[Settings, list[MirrorError]]:
    """The settings, and everything that is missing or wrong, in any part, each told once.

    Asks no server and fetches no secret. (A catalog's ``tables: all`` reads the inventory in the
    landing zone.)
    """
    settings, found = Settings.read(environ)
    later = chain(
        settings.faults(),
        _databases(settings),
        environment.tried(
            lambda: cache_settings.CacheSettings.from_env(settings),
            lambda: firewall.settings_of(settings.variables),
        ),
        alerts.AlertSettings.faults(settings),
    )
    return settings, list({str(fault): fault for fault in chain(found, later)}.values())


def _databases(settings: Settings) -> Iterator[MirrorError]:
    """What is wrong with the catalogs, or with how each database is reached and read."""
    try:
        databases = settings.databases()
    except MirrorError as error:
        yield error
        return
    for spec in databases:
        if _needs_a_way(settings, spec) and not connections.is_named(settings, spec.name):
            yield environment.unnamed(spec.name)
        yield from connections.faults(settings, spec.name)
        yield from reading.faults(settings, spec)


def _needs_a_way(settings: Settings, spec: DatabaseSpec) -> bool:
    """Whether a database must be named already at the start."""
    if backups.is_elsewhere(spec):
        return False
    return settings.environment == "production" or spec.entry.backup is not None


def readme_table() -> str:
    """The README's table of variables."""
    rows = [
        f"| `{name}` | {f'`{default}`' if default else ''} | {meaning} |"
        for name, (default, meaning) in variables().items()
    ]
    return "\n".join(["| Variable | Default | Meaning |", "|---|---|---|", *rows, ""])


def example() -> str:
    """``.env.example``: every variable, commented out, with its default."""
    lines = ["# Every variable, with its default. Copy to .env and fill in: `dagster` reads it."]
    for title, part in PARTS:
        lines += ["", f"# -- {title}", ""]
        for name, (default, meaning) in part.items():
            lines += [f"# {_plain(meaning)}", f"# {name.replace('<NAME>', 'ELATION')}={default}"]
    return "\n".join(lines) + "\n"


def _plain(meaning: str) -> str:
    return meaning.replace("<NAME>", "ELATION").replace("<name>", "elation").replace("`", "")


def with_table(readme: str) -> str:
    """A README whose table of variables is the code's."""
    before, rest = readme.split(MARK)
    return before + MARK + readme_table() + "\n" + rest.split("\n\n", 1)[1]


def _write() -> None:
    root = Path(__file__).parents[1]
    readme = root / "README.md"
    readme.write_text(with_table(readme.read_text(encoding="utf-8")), encoding="utf-8")
    (root / ".env.example").write_text(example(), encoding="utf-8")


if __name__ == "__main__":
    _write()
