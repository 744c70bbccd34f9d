"""The firewall: what is planned, and what two real clients then ask of doubles of both APIs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials, Credentials
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.config import incluster_config  # type: ignore[import-untyped]

from mirror_assets.delivery import kubernetes_nodes
from mirror_assets.delivery.appengine import IngressRules
from mirror_assets.delivery.cloud import CloudFault
from mirror_assets.elation.firewall import (
    VARIABLES,
    FirewallRefused,
    FirewallReport,
    FirewallSettings,
    FirewallUnavailable,
    Plan,
    Rule,
    plan,
    update,
)
from mirror_assets.mirroring.errors import SettingsError
from tests.fakes.appengine import (
    DEFAULT,
    DENY_ALL,
    AppEngine,
    Authority,
    Cluster,
    Discovery,
    serve,
    write_kubeconfig,
)

A, B, C, D = (f"34.86.0.{number}" for number in range(1, 5))
SIX = "2600:1900:4090::5"
APP = "services-test"
OTHERS = (
    Rule(1, "35.1.1.0/24", "office"),
    Rule(7, "35.1.2.0/24", "airflow of the other environment, prod"),
    Rule(900, "35.1.3.9", "test of something else"),
    Rule(DENY_ALL, "*", "deny all", "DENY"),
    Rule(DEFAULT, "*", "The default action.", "ALLOW"),
)


def _ours(*ranges: str) -> tuple[Rule, ...]:
    return tuple(
        Rule(1000 + number, source, f"airflow test: node {number}")
        for number, source in enumerate(ranges)
    )


def _planned(
    addresses: Sequence[str], rules: Sequence[Rule], environment: str = "test", **more: Any
) -> Plan:
    return plan(addresses, rules, environment=environment, **more)


@dataclass
class Bench:
    """Both doubles, running, and settings that lead to them."""

    app: AppEngine
    cluster: Cluster
    rules: IngressRules
    settings: FirewallSettings

    def has(self, nodes: Sequence[str], rules: Sequence[Rule]) -> None:
        self.cluster.nodes = [[("InternalIP", "10.0.0.9"), ("ExternalIP", node)] for node in nodes]
        self.app.rules.clear()
        for rule in rules:
            self.app.add(rule.priority, rule.source_range, rule.description, rule.action)

    def update(self, *, dry_run: bool = False) -> FirewallReport:
        return update(self.settings, dry_run=dry_run, rules=self.rules)

    @property
    def admitted(self) -> list[str]:
        """Ranges of our rules, by priority."""
        return [rule["sourceRange"] for _, rule in sorted(self.app.rules.items()) if _named(rule)]


def _anonymous(endpoint: str) -> IngressRules:
    credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]
    return IngressRules(APP, credentials=credentials, endpoint=endpoint)


def _named(rule: dict[str, Any]) -> bool:
    return {"airflow", "test"} <= set(re.findall(r"\w+", rule.get("description", "")))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def running(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    app, cluster = AppEngine(APP), Cluster()
    with ExitStack() as stack:
        google = stack.enter_context(serve(app.asgi()))
        server = stack.enter_context(serve(cluster.asgi(), authority.issue()))
        path = tmp_path_factory.mktemp("kubeconfig") / "config"
        kubeconfig = write_kubeconfig(path, server, ca=authority.certificate)
        settings = FirewallSettings(APP, "test", context="here", kubeconfig=kubeconfig)
        yield Bench(app, cluster, _anonymous(google), settings)


@pytest.fixture
def bench(running: Bench) -> Iterator[Bench]:
    """The running doubles, as good as new."""
    vars(running.app).update(vars(AppEngine(APP)))
    vars(running.cluster).update(vars(Cluster()))
    yield running
    assert running.app.wrong == [], "requests that Google's discovery document does not know"


# -- the conformance cases, from the nodes to the app's rules


@pytest.mark.parametrize(
    ("nodes", "ranges", "writes"),
    [
        pytest.param([A, B], [A, B], [], id="D-1"),
        pytest.param([A, C], [A, B], [("patch", 1001, C)], id="D-2"),
        pytest.param([C, D], [A, B], [("patch", 1000, C), ("patch", 1001, D)], id="D-3"),
        pytest.param([A, B, C], [A, B], [("create", 1002, C)], id="D-4"),
        pytest.param([B, A], [A, B], [], id="D-6"),
        pytest.param([B], [A, B], [("delete", 1000, None)], id="fewer nodes"),
        pytest.param([C], [A, B], [("patch", 1000, C), ("delete", 1001, None)], id="fewer and new"),
        pytest.param([A, A, B], [A, B], [], id="an address twice"),
        pytest.param([A, B], [A, A], [("patch", 1001, B)], id="a range twice"),
        pytest.param([A], [A, A], [("delete", 1001, None)], id="a range twice too often"),
        pytest.param([A, SIX], [f"{A}/32", "2600:1900:4090:0::5/128"], [], id="other spellings"),
        pytest.param([A], ["34.86.0.0/16"], [("patch", 1000, A)], id="a wide range is narrowed"),
        pytest.param([A], ["*"], [("patch", 1000, A)], id="everybody is narrowed"),
        pytest.param([A, B], [], [("create", 1000, A), ("create", 1001, B)], id="no rules yet"),
    ],
)
def test_nodes_and_rules(
    bench: Bench, nodes: list[str], ranges: list[str], writes: list[tuple[str, int, str | None]]
) -> None:
    bench.has(nodes, [*OTHERS, *_ours(*ranges)])
    others = {rule.priority: bench.app.rules[rule.priority] for rule in OTHERS}
    report = bench.update()
    assert [
        (verb, priority, sent.get("sourceRange")) for verb, priority, sent in bench.app.writes
    ] == writes
    done = [verb for verb, _, _ in writes]
    assert (report.added, report.patched, report.removed) == tuple(
        done.count(verb) for verb in ("create", "patch", "delete")
    )
    assert report.unchanged + report.added + report.patched == len(set(nodes))
    assert {key: rule for key, rule in bench.app.rules.items() if key in others} == others
    assert bench.app.pages == (len(OTHERS) + len(ranges) + 1) // 2
    again = bench.update()
    assert (again.added, again.patched, again.removed) == (0, 0, 0)
    assert len(bench.app.writes) == len(writes)


def test_d_5_a_rule_of_another_environment_is_not_ours(bench: Bench) -> None:
    settings = FirewallSettings.from_env({"MIRROR_FIREWALL_APP": "services-prod"})
    assert settings is not None and settings.environment == "prod"
    assert _planned([A], _ours(B), settings.environment).patches == ()
    # and through both APIs, with the environments exchanged
    bench.has([A], [Rule(1000, B, "airflow prod"), *OTHERS])
    report = bench.update()
    assert (report.added, report.patched, report.removed, report.unchanged) == (1, 0, 0, 0)
    assert bench.app.rules[1000]["sourceRange"] == B
    assert bench.app.rules[1001]["sourceRange"] == A


# -- how it is applied


def test_a_patch_renews_the_description_with_the_range(bench: Bench) -> None:
    bench.has([C], _ours(A))
    bench.update()
    assert bench.app.writes == [
        ("patch", 1000, {"sourceRange": C, "description": f"airflow test node {C}"})
    ]
    assert bench.app.rules[1000]["action"] == "ALLOW"


def test_a_new_rule_allows_one_address(bench: Bench) -> None:
    bench.has([SIX], OTHERS)
    bench.update()
    assert bench.app.rules[1000] == {
        "priority": 1000,
        "action": "ALLOW",
        "sourceRange": SIX,
        "description": f"airflow test node {SIX}",
    }


def test_nobody_who_may_pass_is_ever_locked_out(bench: Bench) -> None:
    bench.has([B, C], _ours(A, A, B, D))
    bench.update()
    assert [verb for verb, _, _ in bench.app.writes] == ["patch", "delete", "delete"]
    for state in bench.app.states:
        assert B in {rule["sourceRange"] for rule in state.values()}
    assert bench.admitted == [C, B]


def test_a_dry_run_says_what_it_would_do_and_changes_nothing(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.has([B, C], [*_ours(A, B), *OTHERS])
    with caplog.at_level("INFO", logger="mirror_assets.elation.firewall"):
        report = bench.update(dry_run=True)
    assert report == FirewallReport(
        added=0,
        patched=1,
        removed=0,
        unchanged=1,
        lines=(f"patch 1000: {A} -> {C}", "0 to add, 1 to patch, 0 to remove, 1 unchanged"),
        dry_run=True,
    )
    assert bench.app.writes == []
    assert caplog.messages == [f"firewall of {APP}: {line}" for line in report.lines]


def test_the_plan_is_said_before_anything_is_done(bench: Bench) -> None:
    bench.has([A, B], _ours(C))
    writes_when_said: list[int] = []
    update(
        bench.settings,
        rules=bench.rules,
        say=lambda _: writes_when_said.append(len(bench.app.writes)),
    )
    assert writes_when_said == [0, 0, 0]
    assert len(bench.app.writes) == 2


def test_nodes_are_read_from_all_pages_and_only_their_external_addresses(bench: Bench) -> None:
    bench.cluster.nodes = [
        [("InternalIP", "10.0.0.1"), ("ExternalIP", A), ("Hostname", "node")],
        [],
        [("ExternalIP", B), ("ExternalIP", SIX)],
    ]
    found = kubernetes_nodes.external_addresses(
        context="here", kubeconfig=bench.settings.kubeconfig, page=2
    )
    assert found == [A, B, SIX]
    assert bench.cluster.pages == 2


# -- faults


@pytest.mark.parametrize(
    ("status", "error", "remedy"),
    [
        (401, FirewallRefused, "Application Default Credentials"),  # these cannot be renewed
        (403, FirewallRefused, "roles/appengine.appAdmin"),
        (404, FirewallRefused, "MIRROR_FIREWALL_APP"),
        (400, FirewallRefused, "defect of the mirror"),
        (429, FirewallUnavailable, "run it again"),
        (500, FirewallUnavailable, "run it again"),
        (503, FirewallUnavailable, "run it again"),
        (200, FirewallUnavailable, "run it again"),  # a page that is not the API's
    ],
)
def test_a_refused_listing_tells_if_a_retry_helps(
    bench: Bench, status: int, error: type[Exception], remedy: str
) -> None:
    bench.has([A], _ours(B))
    bench.app.answers["GET"] = [status]
    with pytest.raises((FirewallRefused, FirewallUnavailable)) as caught:
        bench.update()
    assert type(caught.value) is error
    assert remedy in caught.value.remedy
    assert caught.value.where == f"firewall of {APP}"
    assert str(status) in caught.value.what or status in {200, 401}
    _tells_nothing_of_the_api(caught.value)
    assert bench.app.writes == []


def _tells_nothing_of_the_api(error: BaseException) -> None:
    assert "canary" not in str(error).lower()
    assert error.__cause__ is None and error.__suppress_context__


@pytest.mark.parametrize("verb", ["POST", "PATCH", "DELETE"])
def test_a_failure_half_way_is_completed_by_the_next_run(bench: Bench, verb: str) -> None:
    ranges, nodes = {
        "POST": ([A], [B, C, D]),
        "PATCH": ([A, B], [C, D]),
        "DELETE": ([A, B, C], [D]),
    }[verb]
    bench.has(nodes, _ours(*ranges))
    bench.app.answers[verb] = [503]
    with pytest.raises(FirewallUnavailable, match=r"\(503\); \d of \d changes were made before"):
        bench.update()
    bench.update()
    assert sorted(bench.admitted) == sorted(nodes)


@pytest.mark.parametrize("verb", ["POST", "PATCH", "DELETE"])
def test_a_change_that_was_made_though_the_answer_was_lost_is_not_made_twice(
    bench: Bench, verb: str
) -> None:
    ranges, nodes = {"POST": ([A], [A, B]), "PATCH": ([A], [B]), "DELETE": ([A, B], [B])}[verb]
    bench.has(nodes, _ours(*ranges))
    bench.app.answers[verb] = [500]
    bench.app.accept_then_fail = True
    with pytest.raises(FirewallUnavailable):
        bench.update()
    report = bench.update()
    assert (report.added, report.patched, report.removed) == (0, 0, 0)
    assert len(bench.app.writes) == 1


def test_a_priority_taken_by_a_run_beside_this_one_is_transient(bench: Bench) -> None:
    bench.has([A], [])
    with pytest.raises(FirewallUnavailable, match=r"\(409\)"):
        update(
            bench.settings,
            rules=bench.rules,
            say=lambda _: bench.app.add(1000, A, "airflow test"),
        )
    assert bench.update().unchanged == 1


def test_a_rule_removed_by_a_run_beside_this_one_counts_as_removed(bench: Bench) -> None:
    bench.has([A], _ours(A, B))

    def faster(_: str) -> None:
        bench.app.rules.pop(1001, None)

    report = update(bench.settings, rules=bench.rules, say=faster)
    assert report.removed == 1
    assert bench.admitted == [A]


def test_a_refused_removal_is_told(bench: Bench) -> None:
    bench.has([A], _ours(A, B))
    bench.app.answers["DELETE"] = [403]
    with pytest.raises(FirewallRefused, match=r"removing rule 1001 was refused \(403\)"):
        bench.update()


def test_an_unreachable_app_engine_is_transient(bench: Bench) -> None:
    bench.has([A], [])
    with serve(bench.app.asgi()) as gone:
        pass
    rules = _anonymous(gone)
    with pytest.raises(FirewallUnavailable, match="got no usable answer"):
        update(bench.settings, rules=rules)


def test_an_app_engine_with_a_strange_certificate_is_refused(
    bench: Bench, authority: Authority
) -> None:
    bench.has([A], [])
    with serve(bench.app.asgi(), authority.issue()) as endpoint:
        rules = _anonymous(endpoint)
        with pytest.raises(FirewallRefused, match="certificate is not trusted"):
            update(bench.settings, rules=rules)
    assert bench.app.pages == 0


class _Renewed(Credentials):
    """Credentials that can be renewed, as a service account's."""

    def refresh(self, request: object) -> None:
        self.token = "renewed"


def test_renewed_credentials_that_are_refused_still_are_told(bench: Bench) -> None:
    bench.has([A], _ours(A))
    with serve(bench.app.asgi()) as endpoint:
        credentials = _Renewed()  # type: ignore[no-untyped-call]
        rules = IngressRules(APP, credentials=credentials, endpoint=endpoint)
        bench.app.answers["GET"] = [401]
        assert update(bench.settings, rules=rules).unchanged == 1
        bench.app.answers["GET"] = [401] * 3
        with pytest.raises(FirewallRefused, match=r"\(401\)\. Next: renew"):
            update(bench.settings, rules=rules)


def test_without_google_credentials_nothing_starts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench.has([A], [])
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    with pytest.raises(FirewallRefused, match="has no usable credentials"):
        update(bench.settings)


# -- the cluster


def _through(bench: Bench, path: Path, server: str, **more: Any) -> FirewallReport:
    kubeconfig = write_kubeconfig(path, server, **more)
    return update(replace(bench.settings, kubeconfig=kubeconfig), rules=bench.rules)


def test_a_cluster_of_another_authority_is_refused(
    bench: Bench, authority: Authority, tmp_path: Path
) -> None:
    bench.has([A], _ours(B))
    other = Authority(tmp_path / "other")
    with serve(bench.cluster.asgi(), other.issue()) as server:
        with pytest.raises(FirewallRefused, match="certificate is not trusted") as caught:
            _through(bench, tmp_path / "wrong", server, ca=authority.certificate)
        assert "certificate authority" in caught.value.remedy
        assert bench.cluster.pages == 0 and bench.app.pages == 0
        # the same server, by its own authority
        assert _through(bench, tmp_path / "right", server, ca=other.certificate).patched == 1


def test_a_cluster_with_the_certificate_of_another_host_is_refused(
    bench: Bench, authority: Authority, tmp_path: Path
) -> None:
    bench.has([A], [])
    with (
        serve(bench.cluster.asgi(), authority.issue("elsewhere.test")) as server,
        pytest.raises(FirewallRefused, match="certificate is not trusted"),
    ):
        _through(bench, tmp_path / "wrong", server, ca=authority.certificate)
    assert bench.cluster.pages == 0


def test_the_certificate_check_cannot_be_switched_off(
    bench: Bench, authority: Authority, tmp_path: Path
) -> None:
    bench.has([A], [])
    skip = {"insecure-skip-tls-verify": True}
    with (
        serve(bench.cluster.asgi(), authority.issue()) as server,
        pytest.raises(FirewallRefused, match="cannot be switched off"),
    ):
        _through(bench, tmp_path / "insecure", server, **skip)
    with (
        serve(bench.cluster.asgi()) as plain,
        pytest.raises(FirewallRefused, match="without verified TLS"),
    ):
        _through(bench, tmp_path / "plain", plain)
    assert bench.cluster.pages == 0


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, FirewallRefused),
        (403, FirewallRefused),
        (404, FirewallRefused),
        (429, FirewallUnavailable),
        (500, FirewallUnavailable),
        (503, FirewallUnavailable),
    ],
)
def test_a_refusal_of_the_cluster_tells_if_a_retry_helps(
    bench: Bench, status: int, error: type[Exception]
) -> None:
    bench.has([A], _ours(B))
    bench.cluster.answers = [status]
    with pytest.raises((FirewallRefused, FirewallUnavailable), match=rf"\({status}\)") as caught:
        bench.update()
    assert type(caught.value) is error
    assert caught.value.where == "cluster here"
    assert caught.value.remedy
    assert bench.app.pages == 0


def test_a_wrong_token_is_refused(bench: Bench) -> None:
    bench.has([A], [])
    bench.cluster.token = "another"
    with pytest.raises(FirewallRefused, match=r"\(401\)"):
        bench.update()


def test_an_unreachable_cluster_is_transient(
    bench: Bench, authority: Authority, tmp_path: Path
) -> None:
    with serve(bench.cluster.asgi(), authority.issue()) as gone:
        pass
    with pytest.raises(FirewallUnavailable, match="got no usable answer"):
        _through(bench, tmp_path / "gone", gone, ca=authority.certificate)


@pytest.mark.parametrize("context", [None, "nowhere"])
def test_outside_a_cluster_or_with_an_unknown_context_the_remedy_is_told(
    bench: Bench, context: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(incluster_config.SERVICE_HOST_ENV_NAME, raising=False)
    with pytest.raises(FirewallRefused, match="MIRROR_FIREWALL_CLUSTER"):
        update(replace(bench.settings, context=context), rules=bench.rules)


def test_in_a_cluster_the_pod_knows_the_way(
    bench: Bench, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.has([A], [])
    token = tmp_path / "token"
    token.write_text(bench.cluster.token)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(authority.certificate))
    with serve(bench.cluster.asgi(), authority.issue()) as server:
        host, _, port = server.removeprefix("https://").partition(":")
        monkeypatch.setenv(incluster_config.SERVICE_HOST_ENV_NAME, host)
        monkeypatch.setenv(incluster_config.SERVICE_PORT_ENV_NAME, port)
        settings = replace(bench.settings, context=None, kubeconfig=None)
        assert update(settings, rules=bench.rules).added == 1


# -- what is never planned


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("0.0.0.0/0", "wider than a host"),
        ("::/0", "wider than a host"),
        ("34.86.0.0/31", "wider than a host"),
        ("2600:1900::/127", "wider than a host"),
        ("34.86.0.1/24", "not the address of a host"),
        ("*", "not the address of a host"),
        ("", "not the address of a host"),
        ("node-1.example", "not the address of a host"),
        ("10.0.0.9", "public host"),
        ("192.168.1.1", "public host"),
        ("100.64.0.1", "public host"),
        ("127.0.0.1", "public host"),
        ("169.254.169.254", "public host"),
        ("0.0.0.0", "public host"),
        ("224.0.0.1", "public host"),
        ("255.255.255.255", "public host"),
        ("203.0.113.1", "public host"),
        ("fe80::1", "public host"),
        ("fec0::1", "public host"),
        ("fd00::1", "public host"),
        ("ff02::1", "public host"),
        ("::1", "public host"),
        ("::ffff:34.86.0.1", "public host"),
        ("2600:1900::1%eth0", "public host"),
        ("2001:db8::1", "public host"),
    ],
)
def test_anything_but_one_public_host_is_refused(bench: Bench, address: str, why: str) -> None:
    bench.has([A, address], _ours(B))
    with pytest.raises(FirewallRefused, match=why):
        bench.update()
    assert bench.app.writes == []


@pytest.mark.parametrize("address", [A, f"{A}/32", SIX, f"{SIX}/128"])
def test_one_public_host_is_planned(address: str) -> None:
    assert [rule.source_range for rule in _planned([address], []).adds] == [address.split("/")[0]]


def test_no_address_at_all_is_refused(bench: Bench) -> None:
    bench.has([], _ours(A))
    with pytest.raises(FirewallRefused, match="no external address") as caught:
        bench.update()
    assert caught.value.where == f"firewall of {APP}"
    assert bench.admitted == [A]


@pytest.mark.parametrize("priority", [1, 7, DENY_ALL, DEFAULT])
def test_priorities_that_are_never_ours_are_not_touched(priority: int) -> None:
    rule = Rule(priority, B, "airflow test")
    assert _planned([B], [rule]).unchanged == (rule,)
    with pytest.raises(FirewallRefused, match=f"rule {priority} would have to change"):
        _planned([A], [rule])
    with pytest.raises(FirewallRefused, match=f"rule {priority} would have to change"):
        _planned([A], [Rule(1000, A, "airflow test"), rule])


@pytest.mark.parametrize("priority", [8, DENY_ALL - 1])
def test_priorities_beside_those_are_ours(priority: int) -> None:
    assert len(_planned([A], [Rule(priority, B, "airflow test")]).patches) == 1


def test_a_rule_of_ours_that_denies_is_refused() -> None:
    rule = Rule(1000, A, "airflow test", "DENY")
    with pytest.raises(FirewallRefused, match="does not allow"):
        _planned([A], [rule])
    assert _planned([A], [replace(rule, action="ALLOW")]).changes == 0


@pytest.mark.parametrize(
    ("description", "ours"),
    [
        ("airflow test", True),
        ("Node 3 of Airflow-TEST", True),
        ("airflow_test_2", True),
        ("test: airflow", True),
        ("airflow", False),
        ("test", False),
        ("airflow latest", False),
        ("airflow contest", False),
        ("airflow prod", False),
        ("", False),
    ],
)
def test_ours_are_the_rules_described_by_both_words(description: str, ours: bool) -> None:
    planned = _planned([A], [Rule(1500, B, description)])
    assert bool(planned.patches) == ours
    assert bool(planned.adds) != ours


def test_the_word_is_a_setting() -> None:
    rule = Rule(1500, B, "dagster test")
    assert _planned([A], [rule], word="dagster").patches
    assert not _planned([A], [rule]).patches


def test_new_rules_take_free_priorities_of_the_reserved_range() -> None:
    taken = [Rule(20, "35.1.1.1", "somebody's"), Rule(22, "35.1.1.2", "", "DENY")]
    planned = _planned([A, B], taken, priorities=range(20, 24))
    assert [rule.priority for rule in planned.adds] == [21, 23]
    with pytest.raises(FirewallRefused, match="only 2 of the reserved priorities 20 to 23"):
        _planned([A, B, C], taken, priorities=range(20, 24))


@pytest.mark.parametrize("priorities", [range(5, 20), range(0), range(2000, DENY_ALL + 1)])
def test_the_reserved_range_keeps_clear_of_what_is_never_ours(priorities: range) -> None:
    with pytest.raises(SettingsError, match="MIRROR_FIREWALL_PRIORITIES"):
        _planned([A], [], priorities=priorities)


@pytest.mark.parametrize("environment", ["", "production", "staging", "PROD"])
def test_an_unknown_environment_is_rejected(environment: str) -> None:
    with pytest.raises(SettingsError, match="use one of: prod, test"):
        _planned([A], [], environment)


_HOSTS = st.integers(0, 5).map(lambda number: str(IPv4Address("34.86.0.0") + number))
_RULES = st.dictionaries(
    st.integers(990, 1010),
    st.tuples(
        st.one_of(_HOSTS, _HOSTS.map(lambda host: f"{host}/32"), st.sampled_from(["*", "10.0/8"])),
        st.sampled_from(["airflow test", "airflow prod", "office", ""]),
    ),
    max_size=8,
)


@given(st.lists(_HOSTS, min_size=1, max_size=8), _RULES)
def test_after_any_plan_just_the_nodes_are_admitted(
    nodes: list[str], described: dict[int, tuple[str, str]]
) -> None:
    rules = {key: Rule(key, *described[key]) for key in sorted(described)}
    planned = _planned(nodes, list(rules.values()))
    after = dict(rules)
    after |= {rule.priority: rule for rule in planned.adds}
    after |= {patch.old.priority: patch.new for patch in planned.patches}
    for rule in planned.removes:
        del after[rule.priority]
    ours = [rule for rule in after.values() if {"airflow", "test"} <= set(rule.description.split())]
    assert sorted(str(rule.network) for rule in ours) == sorted({f"{node}/32" for node in nodes})
    others = [rule for rule in rules.values() if rule.description != "airflow test"]
    assert all(after[rule.priority] == rule for rule in others)
    assert not {rule.priority for rule in planned.adds} & set(rules)
    assert _planned(nodes[::-1], [after[key] for key in sorted(after)]).changes == 0


# -- settings


def test_the_firewall_is_off_by_default() -> None:
    assert FirewallSettings.from_env({}) is None
    assert FirewallSettings.from_env({"MIRROR_FIREWALL_APP": ""}) is None


def test_settings_of_the_environment(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.touch()
    assert FirewallSettings.from_env({"MIRROR_FIREWALL_APP": APP}) == FirewallSettings(APP, "test")
    stated = {
        "MIRROR_FIREWALL_APP": "example.com:services",
        "MIRROR_FIREWALL_ENVIRONMENT": "prod",
        "MIRROR_FIREWALL_WORD": "dagster",
        "MIRROR_FIREWALL_PRIORITIES": "2000-2009",
        "MIRROR_FIREWALL_CLUSTER": "gke_project_zone_name",
        "MIRROR_FIREWALL_KUBECONFIG": str(kubeconfig),
    }
    assert set(stated) == set(VARIABLES)
    assert FirewallSettings.from_env(stated) == FirewallSettings(
        "example.com:services",
        "prod",
        "dagster",
        range(2000, 2010),
        "gke_project_zone_name",
        kubeconfig,
    )


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("MIRROR_FIREWALL_APP", "apps/x", "not the id of an app"),
        ("MIRROR_FIREWALL_APP", "Services-Prod", "not the id of an app"),
        ("MIRROR_FIREWALL_ENVIRONMENT", "staging", "use one of: prod, test"),
        ("MIRROR_FIREWALL_ENVIRONMENT", "prod", "not the environment of app services-test"),
        ("MIRROR_FIREWALL_WORD", "two words", "not one word"),
        ("MIRROR_FIREWALL_PRIORITIES", "many", "two numbers from 8 to 2147483645"),
        ("MIRROR_FIREWALL_PRIORITIES", "20-10", "two numbers"),
        ("MIRROR_FIREWALL_PRIORITIES", "1-100", "two numbers"),
        ("MIRROR_FIREWALL_PRIORITIES", "1000-2147483646", "two numbers"),
        ("MIRROR_FIREWALL_KUBECONFIG", "/no/such/file", "set MIRROR_FIREWALL_CLUSTER"),
    ],
)
def test_a_wrong_value_names_its_variable(variable: str, value: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        FirewallSettings.from_env({"MIRROR_FIREWALL_APP": APP, variable: value})
    assert caught.value.where == variable
    assert words in caught.value.sentence


def test_a_missing_kubeconfig_is_told() -> None:
    env = {
        "MIRROR_FIREWALL_APP": APP,
        "MIRROR_FIREWALL_CLUSTER": "here",
        "MIRROR_FIREWALL_KUBECONFIG": "/no/such/file",
    }
    with pytest.raises(SettingsError, match="/no/such/file is not a file"):
        FirewallSettings.from_env(env)


@pytest.mark.parametrize(
    ("app", "environment"),
    [
        ("x-prod", "prod"),
        ("x-test", "test"),
        ("x-nonprod", None),
        ("x-staging", None),
        ("x-prod-test", None),
        ("latest-services", None),
    ],
)
def test_the_environment_is_the_one_that_the_apps_id_names(
    app: str, environment: str | None
) -> None:
    env = {"MIRROR_FIREWALL_APP": app}
    if environment is None:
        with pytest.raises(SettingsError, match="MIRROR_FIREWALL_ENVIRONMENT"):
            FirewallSettings.from_env(env)
        env["MIRROR_FIREWALL_ENVIRONMENT"] = environment = "test"
    found = FirewallSettings.from_env(env)
    assert found is not None and found.environment == environment


# -- the double itself judges by Google's document

_RULES_PATH = f"/v1/apps/{APP}/firewall/ingressRules"


@pytest.mark.parametrize(
    ("verb", "path", "query", "body", "fault"),
    [
        ("GET", _RULES_PATH, {"alt": "json", "pageToken": "x", "pageSize": "2"}, b"", ""),
        ("GET", _RULES_PATH, {"pagetoken": "x"}, b"", "has no parameter pagetoken"),
        ("GET", _RULES_PATH, {"pageSize": "many"}, b"", "pageSize: "),
        ("GET", _RULES_PATH, {"alt": "xml"}, b"", "alt: "),
        ("GET", f"{_RULES_PATH}s", {}, b"", "no method"),
        ("PUT", f"{_RULES_PATH}/7", {}, b"{}", "no method"),
        ("GET", _RULES_PATH, {}, b"{}", "a body where none belongs"),
        ("POST", _RULES_PATH, {}, b'{"priority": 8, "action": "ALLOW"}', ""),
        ("POST", _RULES_PATH, {}, b'{"priority": "8"}', "not of type 'integer'"),
        ("POST", _RULES_PATH, {}, b'{"priority": 2147483648}', "greater than the maximum"),
        ("POST", _RULES_PATH, {}, b'{"source_range": "*"}', "'source_range' was unexpected"),
        ("POST", _RULES_PATH, {}, b'{"action": "allow"}', "'allow' is not one of"),
        ("POST", _RULES_PATH, {}, b"", "not JSON"),
        ("PATCH", f"{_RULES_PATH}/8", {"updateMask": "sourceRange,description"}, b"{}", ""),
        ("PATCH", f"{_RULES_PATH}/8", {"updateMask": "source_range"}, b"{}", "unknown fields"),
    ],
)
def test_the_double_judges_requests_by_googles_document(
    verb: str, path: str, query: dict[str, str], body: bytes, fault: str
) -> None:
    found = Discovery("appengine.v1").faults(verb, path, list(query.items()), body)
    assert fault in found and bool(fault) == bool(found)


def test_a_fault_of_the_cloud_tells_if_time_cures_it() -> None:
    assert CloudFault("reading", "silence").transient
    assert not CloudFault("reading", "certificate").transient
    assert not CloudFault("reading", "identity").transient
    assert CloudFault("reading", "status", 409).sentence == "reading was refused (409)"
