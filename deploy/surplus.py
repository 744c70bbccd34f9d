"""Prints the installed packages that nothing needs which the project itself depends on."""

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions

from packaging.requirements import Requirement

PROJECT = "mirror-assets"
#: Not in anybody's metadata: the installer, and the driver of requirements-fast.lock.
KEPT = {"pip", "setuptools", "mysqlclient"}


def name_of(text: str) -> str:
    """A package's name as the index spells it."""
    return re.sub(r"[-_.]+", "-", text).lower()


def needed(installed: dict[str, Distribution]) -> set[str]:
    """The project's dependencies, and theirs, with the extras that are asked for."""
    seen: set[tuple[str, str]] = set()
    open_ends = [(PROJECT, "")]
    while open_ends:
        name, extra = open_ends.pop()
        if (name, extra) in seen or name not in installed:
            continue
        seen.add((name, extra))
        open_ends += _required(installed[name], extra)
    return {name for name, _ in seen}


def _required(distribution: Distribution, extra: str) -> Iterator[tuple[str, str]]:
    for text in distribution.requires or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            name = name_of(requirement.name)
            yield from [(name, ""), *((name, wanted) for wanted in requirement.extras)]


def surplus() -> list[str]:
    installed = {name_of(found.metadata["Name"]): found for found in distributions()}
    return sorted(set(installed) - needed(installed) - KEPT)


if __name__ == "__main__":
    print("\n".join(surplus()))  # noqa: T201
