"""Where alerts go, read from the environment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import time
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from mirror_assets.mirroring.errors import MirrorError, SettingsError
from mirror_assets.settings.environment import Settings, tried

#: Every environment variable of the alerts, its default, and what it is for.
VARIABLES: dict[str, tuple[str, str]] = {
    "MIRROR_SLACK_TOKEN": ("", "Slack bot token (`chat:write`); without one, alerts are logged"),
    "MIRROR_SLACK_TOKEN_FILE": ("", "file holding that token, mode 0400"),
    "MIRROR_SLACK_CHANNEL": ("#airflow_alerts", "channel that hears of every failure"),
    "MIRROR_SLACK_API": ("https://slack.com/api/", "address of Slack's API"),
    "MIRROR_UI_URL": ("http://127.0.0.1:3000", "address of the Dagster UI, for links to runs"),
    "MIRROR_EHR_CHANNELS": (
        "#elation-feedback,#analytics-support",
        "channels of those who read EHR data, separated by commas",
    ),
    "MIRROR_EHR_DEADLINE": ("08:00", "local time by which the day's EHR data is due, or `off`"),
    "MIRROR_EHR_ZONE": ("US/Pacific", "time zone of that deadline"),
}
_TOKEN = "MIRROR_SLACK_TOKEN"  # noqa: S105 - the variable's name
_TIME = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")
_LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class AlertSettings:
    """Channels, addresses and the deadline; ``deadline`` None is off."""

    channel: str
    readers: Sequence[str]
    api: str
    ui: str
    deadline: time | None
    zone: ZoneInfo
    _settings: Settings = field(repr=False)

    @classmethod
    def from_env(cls, settings: Settings) -> AlertSettings:
        """Raises SettingsError naming the variable."""

        def value(name: str) -> str:
            return settings.variables.get(name) or VARIABLES[name][0]

        readers = value("MIRROR_EHR_CHANNELS").split(",")
        return cls(
            channel=value("MIRROR_SLACK_CHANNEL").strip(),
            readers=[name.strip() for name in readers if name.strip()],
            api=_api(value("MIRROR_SLACK_API")),
            ui=value("MIRROR_UI_URL").rstrip("/"),
            deadline=_time(value("MIRROR_EHR_DEADLINE")),
            zone=_zone(value("MIRROR_EHR_ZONE")),
            _settings=settings,
        )

    @classmethod
    def faults(cls, settings: Settings) -> Iterator[MirrorError]:
        """What is wrong with them, and with the token. Asks no server."""
        yield from tried(lambda: cls.from_env(settings), lambda: settings.secrets.named(_TOKEN))
        is_told = settings.environment == "production" and settings.secrets.stated(_TOKEN)
        if is_told and not settings.variables.get("MIRROR_UI_URL"):
            yield SettingsError(
                "is not set: every link in Slack would lead to the reader's own machine",
                where="MIRROR_UI_URL",
                remedy="set it to the address under which people open the Dagster UI",
            )

    def token(self) -> str | None:
        """None where there is no Slack. Never print it. Raises SettingsError."""
        return self._settings.secrets.value(_TOKEN)

    def run_link(self, run_id: str) -> str:
        return f"{self.ui}/runs/{run_id}"


def _api(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOCAL):
        raise SettingsError(
            "Slack's token would go over the wire in the clear",
            where="MIRROR_SLACK_API",
            remedy="use an https address",
        )
    return f"{url.rstrip('/')}/"


def _time(text: str) -> time | None:
    if text == "off":
        return None
    found = _TIME.fullmatch(text)
    if not found:
        raise SettingsError(
            f"{text!r} is not a time of day",
            where="MIRROR_EHR_DEADLINE",
            remedy="use hours and minutes, such as 08:00, or off",
        )
    return time(int(found[1]), int(found[2]))


def _zone(text: str) -> ZoneInfo:
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise SettingsError(
            f"{text!r} is not a time zone",
            where="MIRROR_EHR_ZONE",
            remedy="use a name such as US/Pacific",
        ) from None
