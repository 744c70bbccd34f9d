"""The rule of the landing zone's bucket that deletes exports which nobody expired.

It covers the landing zone's prefix and nothing else. `mirror upkeep` expires exports of live
databases by their catalogs; the rule also reaches what no catalog speaks of any more.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import SettingsError
from mirror_assets.mirroring.storage import Storage

#: Where no catalog asks for more.
DAYS = 2
#: Conditions of rules that delete older generations of objects only.
_NONCURRENT = ("daysSinceNoncurrentTime", "noncurrentTimeBefore", "numNewerVersions")


@dataclass(frozen=True)
class Rules:
    """What a bucket's rules do. ``days`` is after how many all exports are deleted, None: never.

    ``kept_after`` are days for which the service keeps what was deleted (its soft delete);
    ``also`` names the other places whose files some rule deletes.
    """

    days: int | None
    kept_after: int
    also: tuple[str, ...]


def days_of(databases: Iterable[DatabaseSpec]) -> int | None:
    """After how many days no catalog needs an export any more; None where one keeps them all."""
    kept = [spec.entry.retention.landing_days for spec in databases]
    if any(days is None for days in kept):
        return None
    return max([DAYS, *(days for days in kept if days is not None)])


def look(landing: Storage, others: Mapping[str, str]) -> Rules:
    """The rules of a remote landing zone's bucket; ``others`` are URLs of other places, by name.

    Raises StorageRefused, LandingFault.
    """
    with landing.guard("landing zone"):
        bucket = _bucket(landing)
        rules = [rule for rule in bucket.lifecycle_rules if _deletes(rule)]
        soft = bucket.soft_delete_policy.retention_duration_seconds or 0
    prefix = _prefix(landing.root)
    ages = [age for rule in rules if (age := _age(rule)) is not None and _covers(rule, prefix)]
    also = [
        name
        for name, url in others.items()
        if _same_bucket(landing.root, url) and any(_touches(rule, _prefix(url)) for rule in rules)
    ]
    return Rules(min(ages, default=None), int(soft) // 86_400, tuple(also))


def set_rule(landing: Storage, others: Mapping[str, str], days: int) -> bool:
    """Have exports deleted after some days; whether anything had to be changed.

    Rules of others stay. Raises SettingsError where the rule would cover another place too.
    """
    prefix = _prefix(landing.root)
    for name, url in others.items():
        if _same_bucket(landing.root, url) and _overlap(prefix, _prefix(url)):
            raise SettingsError(
                f"{name} ({url}) and the landing zone ({landing.root}) lie in each other",
                where="MIRROR_LANDING",
                remedy="give each a prefix or a bucket of its own: exports are deleted by prefix",
            )
    wanted: dict[str, Any] = {"action": {"type": "Delete"}, "condition": {"age": days}}
    if prefix:
        wanted["condition"]["matchesPrefix"] = [prefix]
    with landing.guard("landing zone"):
        bucket = _bucket(landing)
        rules = [dict(rule) for rule in bucket.lifecycle_rules]
        if wanted in rules:
            return False
        bucket.lifecycle_rules = [*(rule for rule in rules if not _is_ours(rule, prefix)), wanted]
        bucket.patch()
    return True


def _bucket(place: Storage) -> Any:
    # here, because it would slow down loading the code location
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.storage import Client  # type: ignore[import-untyped]

    emulated = {"project": "emulated", "credentials": AnonymousCredentials()}  # type: ignore[no-untyped-call]
    client = Client(**emulated if os.environ.get("STORAGE_EMULATOR_HOST") else {})
    return client.get_bucket(_name(place.root))


def _name(url: str) -> str:
    return url.removeprefix("gs://").partition("/")[0]


def _prefix(url: str) -> str:
    """What the names of all objects of a place begin with; empty for a whole bucket."""
    prefix = url.removeprefix("gs://").partition("/")[2]
    return f"{prefix}/" if prefix else ""


def _same_bucket(one: str, other: str) -> bool:
    return other.startswith("gs://") and _name(one) == _name(other)


def _overlap(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _deletes(rule: Mapping[str, Any]) -> bool:
    """Whether a rule deletes live objects."""
    condition = rule.get("condition", {})
    is_other = condition.get("isLive") is False or any(name in condition for name in _NONCURRENT)
    return rule.get("action", {}).get("type") == "Delete" and not is_other


def _age(rule: Mapping[str, Any]) -> int | None:
    """After how many days a rule deletes all it covers; None where it deletes some of it."""
    condition = rule.get("condition", {})
    return condition.get("age") if condition.keys() <= {"age", "matchesPrefix"} else None


def _prefixes(rule: Mapping[str, Any]) -> Sequence[str]:
    return rule.get("condition", {}).get("matchesPrefix") or [""]


def _covers(rule: Mapping[str, Any], prefix: str) -> bool:
    return any(prefix.startswith(start) for start in _prefixes(rule))


def _touches(rule: Mapping[str, Any], prefix: str) -> bool:
    return any(_overlap(prefix, start) for start in _prefixes(rule))


def _is_ours(rule: Mapping[str, Any], prefix: str) -> bool:
    """Whether a rule is one of an earlier setting: it deletes by age just this prefix."""
    return _deletes(rule) and _age(rule) is not None and list(_prefixes(rule)) == [prefix]
