"""dagster-slack's resource, pointed at any address, and Slack's answers as verdicts of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dagster_slack import SlackResource
from pydantic import Field

from mirror_assets.orchestration.alerts import messages
from mirror_assets.orchestration.alerts.messages import Message
from mirror_assets.orchestration.alerts.outbox import (
    ChannelRefused,
    MessageRefused,
    SlackBusy,
    SlackDown,
)

if TYPE_CHECKING:
    from slack_sdk import WebClient
    from slack_sdk.errors import SlackApiError

_SECONDS = 10
_WAIT = 30.0  #: where Slack asks to wait and does not say how long
_LONGEST_WAIT = 3600.0
_CHANNEL = {
    "channel_not_found",
    "not_in_channel",
    "is_archived",
    "restricted_action",
    "restricted_action_read_only_channel",
    "restricted_action_thread_only_channel",
}
_MESSAGE = {
    "invalid_blocks",
    "invalid_blocks_format",
    "msg_too_long",
    "msg_blocks_too_long",
    "no_text",
    "invalid_arguments",
    "invalid_arg_name",
    "duplicate_message_not_found",
}


class Slack(SlackResource):
    """Slack's web API at ``api``; the client never repeats a request by itself, because a post
    whose answer was lost may have been taken.
    """

    token: str = Field(repr=False, json_schema_extra={"dagster__is_secret": True})
    api: str = "https://slack.com/api/"

    def get_client(self) -> WebClient:
        from slack_sdk import WebClient

        return WebClient(self.token, base_url=self.api, timeout=_SECONDS, retry_handlers=[])

    def post(self, message: Message, *, thread: str | None) -> str:
        """Post a message; its stamp. Raises SlackBusy, SlackDown, ChannelRefused and
        MessageRefused, with Slack's error word and nothing else of its answer.
        """
        from slack_sdk.errors import SlackApiError

        reply: dict[str, Any] = {"thread_ts": thread, "reply_broadcast": True} if thread else {}
        try:
            answer = self.get_client().chat_postMessage(
                channel=message.channel,
                text=messages.escaped(message.title),
                blocks=messages.blocks(message),
                unfurl_links=False,
                unfurl_media=False,
                **reply,
            )
        except SlackApiError as error:
            raise _verdict(error) from None
        except Exception as error:  # the client lets through whatever its transport raises
            raise SlackDown(f"Slack gave no answer ({type(error).__name__})") from None
        return str(answer.get("ts", ""))


def _verdict(error: SlackApiError) -> Exception:
    answer = error.response
    if answer.status_code == 429:
        return SlackBusy(_wait(answer.headers))
    if answer.status_code >= 500 or not isinstance(answer.data, dict):
        return SlackDown(f"Slack answered with status {answer.status_code}")
    word = str(answer.data.get("error", "unknown_error"))
    word = word if word.replace("_", "").isalnum() and len(word) < 60 else "unknown_error"
    if word == "ratelimited":
        return SlackBusy(_wait(answer.headers))
    if word in _CHANNEL:
        return ChannelRefused(word)
    return MessageRefused(word) if word in _MESSAGE else SlackDown(f"Slack said {word}")


def _wait(headers: Any) -> float:
    """The seconds of Retry-After."""
    told = next((v for k, v in dict(headers).items() if k.lower() == "retry-after"), "")
    text = told[0] if isinstance(told, list) else str(told)
    return min(float(text), _LONGEST_WAIT) if text.isdecimal() else _WAIT
