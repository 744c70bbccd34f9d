"""A line to a PostgreSQL server that breaks when the server has committed and before its client
hears of it.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

_COMMITTED = b"COMMIT\x00"


class Wire:
    """Listens at ``port`` of this machine and passes on. Every connection breaks together."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._word: bytes | None = None
        self._is_down = self._stays_down = False
        self.cuts = 0

    def cut_after_commit(self, word: str, *, for_good: bool = False) -> None:
        """Break when the next transaction whose client said ``word`` is committed."""
        self._word, self._stays_down = word.encode(), for_good

    def mend(self) -> None:
        self._is_down = False

    def __enter__(self) -> Wire:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._listener.close()
        self._hang_up()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                if self._is_down:
                    client.close()
                    continue
                server = socket.create_connection(self._to)
                self._open += [client, server]
                threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        said: list[bytes] = []
        back = threading.Thread(target=self._answer, args=(client, server, said), daemon=True)
        back.start()
        with _both_ended(client, server):
            while data := client.recv(1 << 16):
                if self._word is not None:
                    said.append(data)
                server.sendall(data)

    def _answer(self, client: socket.socket, server: socket.socket, said: list[bytes]) -> None:
        with _both_ended(client, server):
            while data := server.recv(1 << 16):
                if self._word and self._word in b"".join(said) and _COMMITTED in data:
                    self._break()
                    return
                client.sendall(data)

    def _break(self) -> None:
        self._word, self._is_down = None, self._stays_down
        self.cuts += 1
        self._hang_up()

    def _hang_up(self) -> None:
        while self._open:
            _end(self._open.pop())


def _end(one: socket.socket) -> None:
    """Closing alone would not wake whoever waits for it."""
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


@contextmanager
def _both_ended(client: socket.socket, server: socket.socket) -> Iterator[None]:
    try:
        with suppress(OSError):
            yield
    finally:
        _end(client), _end(server)
