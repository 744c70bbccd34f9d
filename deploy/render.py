"""Fills what a site says of itself into the values of the chart and the manifests.

python deploy/render.py SITE.ENV FOLDER
"""

import sys
from pathlib import Path
from string import Template

HERE = Path(__file__).parent


def site(text: str) -> dict[str, str]:
    """The variables of an env file: lines NAME=value, comments, blank lines."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def rendered(variables: dict[str, str]) -> dict[str, str]:
    """Every file by its name, filled in. Raises KeyError naming a variable that is missing."""
    stated = {name: value for name, value in variables.items() if value}
    if "SOURCE_PORTS" in stated:
        stated["SOURCE_PORTS"] = _ports(stated["SOURCE_PORTS"])
    sources = [HERE / "values.yaml", *sorted((HERE / "manifests").glob("*.yaml"))]
    return {path.name: Template(path.read_text()).substitute(stated) for path in sources}


def _ports(text: str) -> str:
    """Numbers separated by commas, as items of a network policy's list."""
    ports = [port.strip() for port in text.split(",")]
    if not all(port.isdecimal() and 0 < int(port) < 1 << 16 for port in ports):
        sys.exit(f"SOURCE_PORTS says {text!r}: write numbers such as 22,3306,5432")
    return ", ".join(f"{{protocol: TCP, port: {port}}}" for port in ports)


def main() -> None:
    env, folder = map(Path, sys.argv[1:])
    try:
        files = rendered(site(env.read_text()))
    except KeyError as missing:
        sys.exit(f"{env} says nothing of {missing.args[0]}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
