"""This machine's own network, which nobody else can reach."""

from __future__ import annotations

import socket
from contextlib import closing

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """A port that was free just now."""
    with closing(socket.socket()) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
