"""The direction of imports, and an engine that does not know Dagster."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mirror_assets"
DRIVERS = {"pymysql", "MySQLdb", "psycopg2", "duckdb", "sqlite3"}
ENGINE = ("mirroring", "delivery")
WITHOUT_DAGSTER = (*ENGINE, "sample")
#: Modules at the root that tell everybody where things are, and import the engine only.
SHARED = (
    "keys",
    "partitions",
    "settings",
)
TOP = ("configuration", "definitions", "surroundings", "cli", "shell", "demo")
_PROOF = "mirror_assets.mirroring.proof"


def _modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }


def _imports(name: str, path: Path) -> Iterator[str]:
    """Every imported module, also inside functions; ``from a import b`` counts as ``a.b`` too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module or ""]))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


GRAPH = {name: set(_imports(name, path)) for name, path in _modules().items()}
DOMAINS = sorted(path.parent.name for path in PACKAGE.glob("*/catalog.yaml"))


def _area(module: str) -> str:
    """The part of the package that a module belongs to: mirroring, elation, cli .."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "mirror_assets" else ""


def _rank(area: str) -> int | None:
    """Lower ranks never import higher ones."""
    if area in ENGINE:
        return 0
    if area in (*SHARED, "sample"):
        return 1
    if area == "orchestration":
        return 2
    if area in DOMAINS:
        return 3
    return 4 if area in TOP else None


def test_every_module_has_a_place_in_the_order() -> None:
    areas = {_area(module) for module in GRAPH} - {""}
    unplaced = sorted(area for area in areas if _rank(area) is None)
    assert unplaced == [], "say in this test where these belong"
    assert {"mirroring", "elation"} <= areas


def test_imports_never_point_back() -> None:
    wrong = [
        f"{module} imports {imported}"
        for module, imports in GRAPH.items()
        for imported in imports
        if (mine := _rank(_area(module))) is not None
        and (theirs := _rank(_area(imported))) is not None
        and theirs > mine
    ]
    assert wrong == []


def test_domains_do_not_import_each_other() -> None:
    wrong = [
        f"{module} imports {imported}"
        for module, imports in GRAPH.items()
        for imported in imports
        if _area(module) in DOMAINS
        and _area(imported) in DOMAINS
        and _area(module) != _area(imported)
    ]
    assert wrong == []


def test_the_two_halves_of_the_engine_do_not_know_each_other() -> None:
    for module, imports in GRAPH.items():
        if _area(module) in ENGINE:
            others = set(ENGINE) - {_area(module)}
            assert not {_area(imported) for imported in imports} & others, module


def _of(area: str) -> list[str]:
    return sorted(module for module in GRAPH if _area(module) == area)


@pytest.mark.parametrize("area", WITHOUT_DAGSTER)
def test_no_dagster_is_imported(area: str) -> None:
    for module in _of(area):
        found = {name for name in GRAPH[module] if name.split(".")[0].startswith("dagster")}
        assert not found, f"{module} imports {found}: it belongs into orchestration/"


def test_dagster_is_imported_somewhere_so_that_the_walk_sees_it() -> None:
    found = {
        _area(module)
        for module, imports in GRAPH.items()
        if any(name.split(".")[0] == "dagster" for name in imports)
    }
    assert found, "the walk finds no import of dagster at all"
    assert not found & set(WITHOUT_DAGSTER)


def test_a_fresh_interpreter_loads_the_engine_without_dagster() -> None:
    modules = [*_of("mirroring"), *_of("delivery"), *_of("sample"), "mirror_assets.settings"]
    script = (
        f"import sys, importlib\nfor name in {modules!r}: importlib.import_module(name)\n"
        "print([name for name in sys.modules if name.split('.')[0].startswith('dagster')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_engine_reaches_sources_and_warehouses_by_their_interfaces() -> None:
    adapters = {
        module
        for module in GRAPH
        if module.startswith(
            ("mirror_assets.mirroring.sources.", "mirror_assets.mirroring.warehouses.")
        )
        and not module.endswith(".base")
    }
    assert len(adapters) >= 2
    for module in _of("mirroring"):
        if ".sources" in module or ".warehouses" in module:
            continue
        assert not GRAPH[module] & adapters, module


def test_sources_and_warehouses_do_not_know_each_other_or_the_run() -> None:
    for module in _of("mirroring"):
        for mine, theirs in (("sources", "warehouses"), ("warehouses", "sources")):
            if f".{mine}" in module:
                names = [name for name in GRAPH[module] if f"mirroring.{theirs}" in name]
                assert not names, module
        if ".sources" in module or ".warehouses" in module:
            assert not GRAPH[module] & {
                "mirror_assets.mirroring.mirror",
                "mirror_assets.mirroring.publication",
            }, module


def test_domains_never_import_drivers() -> None:
    assert "elation" in DOMAINS
    for domain in DOMAINS:
        for module in _of(domain):
            found = {name.split(".")[0] for name in GRAPH[module]} & DRIVERS
            assert not found, f"{module} imports {found}"


def test_only_named_modules_import_drivers() -> None:
    users: dict[str, set[str]] = {}
    for module, imports in GRAPH.items():
        for driver in {name.split(".")[0] for name in imports} & DRIVERS:
            users.setdefault(driver, set()).add(_area(module))
    assert users["duckdb"] <= {"mirroring"}
    assert users["pymysql"] <= {"mirroring", "sample"}
    assert users.get("psycopg2", set()) <= {"mirroring", "sample"}


def test_a_proof_shares_no_formatting_with_what_it_proves() -> None:
    proof = [module for module in _of("mirroring") if module.startswith(_PROOF)]
    assert len(proof) >= 5
    shared = {f"mirror_assets.mirroring.{name}" for name in ("dialect", "casts", "scan")}
    for module in proof:
        assert not GRAPH[module] & shared, module
        assert not any(".sources." in name and ".base" not in name for name in GRAPH[module])
