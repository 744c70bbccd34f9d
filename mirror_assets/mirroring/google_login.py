"""What a failure of Google's login library means, for each of its clients."""

from __future__ import annotations


def is_of_login(error: BaseException) -> bool:
    """Whether Google's login library raised it."""
    return type(error).__module__.startswith("google.auth")


def may_pass(error: BaseException) -> bool:
    """Whether time cures it: the token service was not reached."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return "TransportError" in names or bool(getattr(error, "retryable", False))
