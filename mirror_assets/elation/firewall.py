"""The App Engine firewall admits exactly the cluster's nodes: what differs is planned, then done.

The services that take our posts admit listed addresses only, and a cluster's nodes change theirs.
Planning is pure, touches only rules that are ours by their description, and never opens more than
single public hosts. Additions are applied before removals, so nobody who may pass is locked out.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mirror_assets.delivery.cloud import CloudFault, Reason
from mirror_assets.mirroring.errors import (
    MirrorError,
    PermanentError,
    SettingsError,
    TransientError,
)

if TYPE_CHECKING:
    from mirror_assets.delivery.appengine import IngressRules

Network = IPv4Network | IPv6Network

_log = logging.getLogger(__name__)

ENVIRONMENTS = ("prod", "test")
#: Priorities that are never ours: the hand-made first rules, and deny-all with the default rule.
_FIRST = range(1, 8)
_LAST = range(2_147_483_646, 2_147_483_648)
_BETWEEN = range(_FIRST.stop, _LAST.start)
RESERVED = range(1000, 2000)
_IPV6_UNICAST = IPv6Network("2000::/3")
IN_CLUSTER = "in-cluster"

_WORD = re.compile(r"[a-z0-9]+")
_APP = re.compile(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
_PRIORITIES = re.compile(r"([0-9]{1,10})-([0-9]{1,10})", re.ASCII)

#: Every environment variable of the firewall, its default, and what it is for.
VARIABLES: dict[str, tuple[str, str]] = {
    "MIRROR_FIREWALL_APP": (
        "",
        "App Engine app whose firewall shall admit the cluster's nodes; unset: left alone",
    ),
    "MIRROR_FIREWALL_ENVIRONMENT": (
        "",
        "`prod` or `test`: the second word of our rules' descriptions; unset: as in the app's id",
    ),
    "MIRROR_FIREWALL_WORD": ("airflow", "the first word of our rules' descriptions"),
    "MIRROR_FIREWALL_PRIORITIES": (
        f"{RESERVED.start}-{RESERVED.stop - 1}",
        "priorities that new firewall rules may take",
    ),
    "MIRROR_FIREWALL_CLUSTER": (
        IN_CLUSTER,
        "context of the kubeconfig file, or the cluster that the run is in",
    ),
    "MIRROR_FIREWALL_KUBECONFIG": ("", "that file; unset: `KUBECONFIG` or `~/.kube/config`"),
}


class FirewallRefused(PermanentError):  # noqa: N818 - the kinds read as nouns
    """The firewall or the cluster cannot be brought in line before somebody acts."""

    kind = "firewall"


class FirewallUnavailable(TransientError):  # noqa: N818
    """An API did not answer, or answered that it is busy."""

    kind = "firewall_unavailable"


@dataclass(frozen=True)
class Rule:
    """One ingress rule; ``source_range`` in CIDR notation, a bare address, or ``*``."""

    priority: int
    source_range: str
    description: str = ""
    action: str = "ALLOW"

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        """From the API's ``FirewallRule``, which leaves out empty fields."""
        return cls(
            priority=int(found["priority"]),
            source_range=found.get("sourceRange", ""),
            description=found.get("description", ""),
            action=found.get("action", ""),
        )

    @property
    def body(self) -> dict[str, Any]:
        """As the API's ``FirewallRule``."""
        return {"priority": self.priority, "action": self.action, **self.changeable}

    @property
    def changeable(self) -> dict[str, str]:
        """The fields that a patch replaces, by the API's names."""
        return {"sourceRange": self.source_range, "description": self.description}

    @property
    def network(self) -> Network | None:
        """The range; None where it is none, as ``*``."""
        try:
            return ip_network(self.source_range)
        except ValueError:
            return None


@dataclass(frozen=True)
class Patch:
    """A rule of ours, and what it becomes under the same priority."""

    old: Rule
    new: Rule


@dataclass(frozen=True)
class Plan:
    """What brings the firewall in line. All rules are ours, in the order of listing."""

    adds: tuple[Rule, ...]
    patches: tuple[Patch, ...]
    removes: tuple[Rule, ...]
    unchanged: tuple[Rule, ...]

    @property
    def changes(self) -> int:
        return len(self.adds) + len(self.patches) + len(self.removes)

    def lines(self) -> tuple[str, ...]:
        """For people, in the order of application; the last line counts."""
        return (
            *(f"add {rule.priority}: {rule.source_range}" for rule in self.adds),
            *(
                f"patch {patch.old.priority}: {patch.old.source_range} -> {patch.new.source_range}"
                for patch in self.patches
            ),
            *(f"remove {rule.priority}: {rule.source_range}" for rule in self.removes),
            f"{len(self.adds)} to add, {len(self.patches)} to patch, {len(self.removes)} to remove,"
            f" {len(self.unchanged)} unchanged",
        )


@dataclass(frozen=True)
class FirewallSettings:
    """Which firewall admits which cluster. ``context`` None is the cluster that we run in."""

    app: str
    environment: str
    word: str = VARIABLES["MIRROR_FIREWALL_WORD"][0]
    priorities: range = RESERVED
    context: str | None = None
    kubeconfig: Path | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self | None:
        """None when no app is named: off. Raises SettingsError naming the variable."""

        def value(name: str) -> str:
            return env.get(name) or VARIABLES[name][0]

        app = value("MIRROR_FIREWALL_APP")
        if not app:
            return None
        if not _APP.fullmatch(app):
            raise SettingsError(
                f"{app!r} is not the id of an app",
                where="MIRROR_FIREWALL_APP",
                remedy="use the id of the app's project, such as services-test",
            )
        word = value("MIRROR_FIREWALL_WORD")
        if not _WORD.fullmatch(word):
            raise SettingsError(
                f"{word!r} is not one word",
                where="MIRROR_FIREWALL_WORD",
                remedy="use lower-case letters and digits",
            )
        cluster = value("MIRROR_FIREWALL_CLUSTER")
        return cls(
            app=app,
            environment=_environment(app, value("MIRROR_FIREWALL_ENVIRONMENT")),
            word=word,
            priorities=_priorities(value("MIRROR_FIREWALL_PRIORITIES")),
            context=None if cluster == IN_CLUSTER else cluster,
            kubeconfig=_kubeconfig(value("MIRROR_FIREWALL_KUBECONFIG"), cluster),
        )


def settings_of(env: Mapping[str, str]) -> tuple[FirewallSettings, ...]:
    """One for each app that ``MIRROR_FIREWALL_APP`` names, separated by commas; () when off."""
    apps = [app.strip() for app in env.get("MIRROR_FIREWALL_APP", "").split(",") if app.strip()]
    found = (FirewallSettings.from_env({**env, "MIRROR_FIREWALL_APP": app}) for app in apps)
    return tuple(settings for settings in found if settings is not None)


@dataclass(frozen=True)
class FirewallReport:
    """Counts of rules; with ``dry_run`` they are what would have been done."""

    added: int
    patched: int
    removed: int
    unchanged: int
    lines: tuple[str, ...]
    dry_run: bool = False


def plan(
    addresses: Iterable[str],
    rules: Iterable[Rule],
    *,
    word: str = "airflow",
    environment: str,
    priorities: range = RESERVED,
) -> Plan:
    """How our rules among all ``rules`` of a firewall come to admit just these addresses.

    New addresses take over stale rules in the order of listing; those left over take a free
    priority each, stale rules left over go. Raises FirewallRefused, SettingsError.
    """
    _check_environment(environment)
    _check_priorities(priorities)
    listed = tuple(rules)
    wanted = dict.fromkeys(_host(address) for address in addresses)
    if not wanted:
        raise FirewallRefused(
            "the cluster has no external address, so every rule of ours would go",
            remedy="check that its nodes have public addresses; if not, unset MIRROR_FIREWALL_APP",
        )
    unchanged: dict[Network, Rule] = {}
    stale: list[Rule] = []
    for rule in listed:
        if not _is_ours(rule, word, environment):
            continue
        network = _allowing(rule).network
        if network in wanted and network not in unchanged:
            unchanged[network] = rule
        else:
            stale.append(rule)
    for rule in stale:
        _check_ours_to_change(rule)
    new = [network for network in wanted if network not in unchanged]
    patches = tuple(
        Patch(rule, _admitting(network, rule.priority, word, environment))
        for network, rule in zip(new, stale, strict=False)
    )
    homeless = new[len(patches) :]
    adds = tuple(
        _admitting(network, priority, word, environment)
        for network, priority in zip(
            homeless, _free(priorities, listed, len(homeless)), strict=True
        )
    )
    return Plan(adds, patches, tuple(stale[len(patches) :]), tuple(unchanged.values()))


def update(
    settings: FirewallSettings,
    *,
    dry_run: bool = False,
    rules: IngressRules | None = None,
    say: Callable[[str], None] = _log.info,
) -> FirewallReport:
    """Bring an app's firewall in line with a cluster; every line of the plan is said before.

    ``rules`` is another way to the app's firewall than Google's, with the process's credentials.
    Running it again after a failure completes what is left. Raises FirewallRefused and
    FirewallUnavailable, which say how many changes had been made.
    """
    # here: slow to import, and only needed where a firewall is configured
    from mirror_assets.delivery import appengine, kubernetes_nodes

    with _edge(f"cluster {settings.context or IN_CLUSTER}", _CLUSTER_REMEDIES):
        addresses = kubernetes_nodes.external_addresses(
            context=settings.context, kubeconfig=settings.kubeconfig
        )
    where = f"firewall of {settings.app}"
    with _edge(where, _APP_REMEDIES):
        rules = rules or appengine.IngressRules(settings.app)
        listed = [Rule.of(found) for found in rules.list()]
    try:
        todo = plan(
            addresses,
            listed,
            word=settings.word,
            environment=settings.environment,
            priorities=settings.priorities,
        )
    except MirrorError as error:
        raise error.at(where) from None
    lines = todo.lines()
    for line in lines:
        say(f"{where}: {line}")
    if not dry_run:
        _apply(todo, rules, where)
    return FirewallReport(
        added=len(todo.adds),
        patched=len(todo.patches),
        removed=len(todo.removes),
        unchanged=len(todo.unchanged),
        lines=lines,
        dry_run=dry_run,
    )


def _apply(todo: Plan, rules: IngressRules, where: str) -> None:
    steps = [
        *(partial(rules.create, rule.body) for rule in todo.adds),
        *(partial(rules.patch, patch.old.priority, patch.new.changeable) for patch in todo.patches),
        *(partial(_remove, rules, rule.priority) for rule in todo.removes),
    ]
    for done, step in enumerate(steps):
        with _edge(where, _APP_REMEDIES, f"; {done} of {len(steps)} changes were made before"):
            step()


def _remove(rules: IngressRules, priority: int) -> None:
    try:
        rules.delete(priority)
    except CloudFault as fault:
        if fault.status != HTTPStatus.NOT_FOUND:  # a run beside this one was faster
            raise


# -- planning


def _host(text: str) -> Network:
    """The network of one public host."""
    try:
        network = ip_network(text)
    except ValueError:
        raise _unfit(text, "is not the address of a host") from None
    if network.num_addresses != 1:
        raise _unfit(text, "is wider than a host")
    address = network.network_address
    public = address.is_global and not address.is_multicast and "%" not in text
    if not public or (isinstance(address, IPv6Address) and address not in _IPV6_UNICAST):
        raise _unfit(text, "is not the address of a public host")
    return network


def _unfit(address: str, why: str) -> FirewallRefused:
    return FirewallRefused(
        f"the cluster's external address {address!r} {why}; no rule was changed",
        remedy="check the addresses of the cluster's nodes",
    )


def _is_ours(rule: Rule, word: str, environment: str) -> bool:
    return {word, environment} <= set(_WORD.findall(rule.description.lower()))


def _allowing(rule: Rule) -> Rule:
    if rule.action == "ALLOW":
        return rule
    raise FirewallRefused(
        f"rule {rule.priority} is ours by its description but does not allow; no rule was changed",
        remedy="reword its description, or delete it",
    )


def _check_ours_to_change(rule: Rule) -> None:
    if rule.priority in _BETWEEN:
        return
    raise FirewallRefused(
        f"rule {rule.priority} would have to change, but rules of its priority are never ours;"
        " no rule was changed",
        remedy="reword its description, or give it another priority",
    )


def _free(priorities: range, taken: Iterable[Rule], count: int) -> list[int]:
    used = {rule.priority for rule in taken}
    free = list(islice((number for number in priorities if number not in used), count))
    if len(free) == count:
        return free
    raise FirewallRefused(
        f"{count} rules are to be added, but only {len(free)} of the reserved priorities"
        f" {priorities.start} to {priorities.stop - 1} are free; no rule was changed",
        remedy="delete rules there, or widen MIRROR_FIREWALL_PRIORITIES",
    )


def _admitting(network: Network, priority: int, word: str, environment: str) -> Rule:
    address = str(network.network_address)
    return Rule(priority, address, f"{word} {environment} node {address}")


# -- settings


def _environment(app: str, stated: str) -> str:
    """The stated environment, or the one that the app's id names; they may not contradict."""
    named = [word for word in ENVIRONMENTS if word in _WORD.findall(app)]
    environment = stated or (named[0] if len(named) == 1 else "")
    _check_environment(environment)
    if named and environment not in named:
        raise SettingsError(
            f"{environment!r} is not the environment of app {app}",
            where="MIRROR_FIREWALL_ENVIRONMENT",
            remedy="leave it unset, or name another app",
        )
    return environment


def _check_environment(environment: str) -> None:
    if environment not in ENVIRONMENTS:
        raise SettingsError(
            f"{environment!r} is not an environment",
            where="MIRROR_FIREWALL_ENVIRONMENT",
            remedy=f"use one of: {', '.join(ENVIRONMENTS)}",
        )


def _priorities(text: str) -> range:
    match = _PRIORITIES.fullmatch(text)
    found = range(int(match[1]), int(match[2]) + 1) if match else range(0)
    _check_priorities(found)
    return found


def _check_priorities(priorities: range) -> None:
    if not priorities or priorities[0] not in _BETWEEN or priorities[-1] not in _BETWEEN:
        raise SettingsError(
            "not a range of priorities that new rules may take",
            where="MIRROR_FIREWALL_PRIORITIES",
            remedy=f"use two numbers from {_BETWEEN.start} to {_BETWEEN.stop - 1}, such as"
            f" {VARIABLES['MIRROR_FIREWALL_PRIORITIES'][0]}",
        )


def _kubeconfig(text: str, cluster: str) -> Path | None:
    if not text:
        return None
    where = "MIRROR_FIREWALL_KUBECONFIG"
    if cluster == IN_CLUSTER:
        raise SettingsError(
            "a kubeconfig file is named, but no context of it",
            where=where,
            remedy="set MIRROR_FIREWALL_CLUSTER to the context",
        )
    path = Path(text).absolute()
    if not path.is_file():
        raise SettingsError(f"{path} is not a file", where=where)
    return path


# -- faults

_CLUSTER_REMEDIES: dict[Reason | int, str] = {
    "certificate": "give the cluster's certificate authority in the kubeconfig file; its check"
    " cannot be switched off",
    "identity": "run in the cluster, or set MIRROR_FIREWALL_CLUSTER to a context of the kubeconfig",
    401: "renew the credentials of the kubeconfig's user or the pod's service account",
    403: "let the service account list nodes (a ClusterRole with `list` on `nodes`)",
    404: "check that MIRROR_FIREWALL_CLUSTER names a Kubernetes API server",
}
_APP_REMEDIES: dict[Reason | int, str] = {
    "certificate": "check the proxy between here and Google",
    "identity": "give the run a Google service account (Application Default Credentials)",
    401: "renew the run's Google credentials",
    403: "grant the run's service account roles/appengine.appAdmin on the app's project",
    404: "check MIRROR_FIREWALL_APP, and whether somebody else edits the app's firewall",
}
#: By whether the fault is transient: the error's class, and the remedy where none is known.
_VERDICTS: dict[bool, tuple[type[MirrorError], str]] = {
    True: (FirewallUnavailable, "run it again: what was done stays done"),
    False: (FirewallRefused, "this is a defect of the mirror: report it with this line"),
}


@contextmanager
def _edge(where: str, remedies: Mapping[Reason | int, str], more: str = "") -> Iterator[None]:
    """A cloud API's fault as ours, with place and remedy."""
    try:
        yield
    except CloudFault as fault:
        kind, otherwise = _VERDICTS[fault.transient]
        remedy = remedies.get(fault.status or fault.reason, otherwise)
        raise kind(fault.sentence + more, where=where, remedy=remedy) from None
