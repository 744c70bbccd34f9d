"""Posting what is queued, in its order, until Slack has it: an outage delays, it loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from mirror_assets.orchestration.alerts.memory import Memory
from mirror_assets.orchestration.alerts.messages import Message

_AT_ONCE = 25  #: posts of one tick, so that a sensor never runs for long
_TRIES = 5  #: of a message that Slack refuses as such; then the log has it


class SlackBusy(Exception):  # noqa: N818 - what happened, not an error of ours
    """Slack asks to wait."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"Slack asks to wait {seconds:g} seconds")
        self.seconds = seconds


class SlackDown(Exception):  # noqa: N818
    """No answer, an answer 5xx, or a token that Slack does not take: no message would pass."""


class ChannelRefused(Exception):  # noqa: N818
    """The channel is not there, is archived, or the app is no member of it."""


class MessageRefused(Exception):  # noqa: N818
    """Slack does not take this message."""


class Poster(Protocol):
    """Posts a message, under ``thread`` where one is given; gives Slack's stamp of it."""

    def __call__(self, message: Message, *, thread: str | None) -> str: ...


def deliver(
    memory: Memory,
    post: Poster,
    save: Callable[[], None],
    say: Callable[[str], None],
    default_channel: str,
    *,
    clock: Callable[[], float],
) -> str:
    """Post queued messages, saving after each, so that none is sent twice.

    Only where Slack's answer is lost, or the process dies between Slack's answer and the saving,
    is a message sent again. Gives a sentence about what happened; raises nothing of Slack's.
    """
    if clock() < memory.not_before:
        return f"Slack asked to wait {memory.not_before - clock():.0f} seconds more"
    posted = 0
    try:
        while memory.outbox and posted < _AT_ONCE:
            message = memory.outbox[0]
            try:
                stamp = post(message, thread=_thread(memory, message))
            except ChannelRefused as refused:
                memory.outbox[:1] = _redirected(message, default_channel, refused)
                if message.channel == default_channel:
                    raise SlackDown(f"{default_channel}: {refused}") from None
            except MessageRefused as refused:
                memory.outbox[:1] = []
                if message.tries + 1 < _TRIES:
                    memory.outbox.append(replace(message, tries=message.tries + 1))
                    return f"Slack does not take a message: {refused}"
                say(f"Slack never took this message ({refused}):\n{message.plain}")
            else:
                memory.outbox[:1] = []
                memory.threads.setdefault(message.alert, {}).setdefault(message.channel, stamp)
                posted += 1
            save()
    except SlackBusy as busy:
        memory.not_before = clock() + busy.seconds
        return f"{posted} posted, {len(memory.outbox)} wait: {busy}"
    except SlackDown as down:
        return f"{posted} posted, {len(memory.outbox)} wait: {down}"
    finally:
        save()
    return f"{posted} posted, {len(memory.outbox)} wait"


def log(memory: Memory, say: Callable[[str], None]) -> str:
    """Where there is no Slack, the log is told."""
    count = len(memory.outbox)
    for text in dict.fromkeys(message.plain for message in memory.outbox):
        say(text)
    memory.outbox.clear()
    return f"{count} logged: no Slack token is set"


def _thread(memory: Memory, message: Message) -> str | None:
    return memory.threads.get(message.alert, {}).get(message.channel) if message.reply else None


def _redirected(message: Message, default: str, refused: ChannelRefused) -> list[Message]:
    """A message whose channel is out of reach goes to the default one, and says so."""
    if message.channel == default:
        return [message]
    note = f"(For {message.channel}, which cannot be posted to: {refused}. Invite the app to it.)"
    return [replace(message, channel=default, body=f"{message.body}\n{note}")]
