"""What people have been told already, and what is still to be sent. Plain data, kept as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from mirror_assets.orchestration.alerts import messages
from mirror_assets.orchestration.alerts.findings import Finding
from mirror_assets.orchestration.alerts.messages import Message, Told

#: An open alert that nobody ever closes is forgotten after this time.
_FORGOTTEN = timedelta(days=60)
_READERS = "ehr_stale"


@dataclass(frozen=True)
class Channels:
    """Who hears what: the default channel everything, a database's own what is of it."""

    default: str
    readers: Sequence[str] = ()
    of_database: Mapping[str, str] = field(default_factory=dict)

    def of(self, finding: Finding) -> list[str]:
        if finding.kind == _READERS:
            return list(self.readers)
        own = self.of_database.get(finding.scope.partition("/")[0], "")
        return list(dict.fromkeys(filter(None, [self.default, own])))


@dataclass(frozen=True)
class Origin:
    """Where findings come from: a run, or another sensor."""

    link: str
    will_retry: bool = False
    is_retry: bool = False


@dataclass
class Memory:
    """``runs``: those seen of late, by id. ``open``: by subject, which alert it belongs to, its
    kind and size. ``alerts``: by id, what is needed to say that it is over. ``threads``: by alert
    and channel, Slack's stamp of the message. ``outbox``: what Slack does not have yet.
    """

    seen: str = ""
    runs: dict[str, str] = field(default_factory=dict)
    open: dict[str, dict[str, Any]] = field(default_factory=dict)
    alerts: dict[str, dict[str, Any]] = field(default_factory=dict)
    threads: dict[str, dict[str, str]] = field(default_factory=dict)
    outbox: list[Message] = field(default_factory=list)
    not_before: float = 0.0
    number: int = 0

    @classmethod
    def read(cls, text: str | None) -> Memory:
        """Raises ValueError when the text is not what ``text`` gives."""
        if not text:
            return cls()
        stored = json.loads(text)
        try:
            stored["outbox"] = [Message(**item) for item in stored["outbox"]]
            return cls(**stored)
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a memory of alerts: {type(error).__name__}") from None

    def text(self) -> str:
        stored = {**vars(self), "outbox": [message.stored() for message in self.outbox]}
        return json.dumps(stored, ensure_ascii=False, sort_keys=True)

    # -- what is new, what is over

    def observe(
        self,
        bad: Iterable[Finding],
        well: Iterable[str],
        origin: Origin,
        channels: Channels,
        now: datetime,
    ) -> None:
        """Take in what was found; messages about what is new or over join the outbox."""
        groups: dict[tuple[str, str, str], list[Finding]] = {}
        for finding in bad:
            if self._is_new(finding):
                groups.setdefault(finding.group, []).append(finding)
            elif origin.is_retry and not origin.will_retry:
                self._retry_failed(finding, origin)
        for findings in groups.values():
            self._open(findings, origin, channels, now)
        self._close(well, origin, now)
        self._forget(now)

    def _is_new(self, finding: Finding) -> bool:
        known = self.open.get(finding.subject)
        return known is None or known["kind"] != finding.kind or finding.size > known["size"]

    def _open(
        self, findings: Sequence[Finding], origin: Origin, channels: Channels, now: datetime
    ) -> None:
        first = findings[0]
        self.number += 1
        alert = f"alert-{self.number}"
        chosen = channels.of(first)
        if first.lasting:
            self.alerts[alert] = {
                "kind": first.kind,
                "scope": first.scope,
                "partition": first.partition,
                "items": [finding.item for finding in findings],
                "channels": chosen,
                "opened": now.isoformat(),
                "retrying": origin.will_retry,
            }
            for finding in findings:
                self.open[finding.subject] = {
                    "alert": alert,
                    "kind": finding.kind,
                    "size": finding.size,
                }
        told = messages.alert(findings, will_retry=origin.will_retry)
        self._queue(alert, chosen, told, origin.link, reply=False)

    def _retry_failed(self, finding: Finding, origin: Origin) -> None:
        alert = self.open[finding.subject]["alert"]
        about = self.alerts[alert]
        if about["retrying"]:
            about["retrying"] = False
            told = messages.retry_failed(about["kind"])
            self._queue(alert, about["channels"], told, origin.link, reply=True)

    def _close(self, well: Iterable[str], origin: Origin, now: datetime) -> None:
        closed = {self.open.pop(subject)["alert"] for subject in well if subject in self.open}
        still = {entry["alert"] for entry in self.open.values()}
        for alert in sorted(closed - still):
            about = self.alerts.pop(alert)
            minutes = (now - datetime.fromisoformat(about["opened"])).total_seconds() / 60
            told = messages.over(
                about["kind"],
                about["scope"],
                about["partition"],
                minutes=minutes,
                items=about["items"],
            )
            self._queue(alert, about["channels"], told, origin.link, reply=True)

    def _queue(
        self, alert: str, channels: Sequence[str], told: Told, link: str, *, reply: bool
    ) -> None:
        self.outbox += [
            Message(alert, channel, told.title, told.body, link, reply) for channel in channels
        ]

    def _forget(self, now: datetime) -> None:
        """Drop what is too old, and alerts that nothing belongs to: their findings moved on to a
        newer one, which tells more.
        """
        oldest = (now - _FORGOTTEN).isoformat()
        old = {alert for alert, about in self.alerts.items() if about["opened"] < oldest}
        self.open = {s: entry for s, entry in self.open.items() if entry["alert"] not in old}
        kept = {entry["alert"] for entry in self.open.values()}
        self.alerts = {alert: about for alert, about in self.alerts.items() if alert in kept}
        queued = {message.alert for message in self.outbox}
        self.threads = {a: stamps for a, stamps in self.threads.items() if a in kept | queued}
