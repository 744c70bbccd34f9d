"""Cloud Storage on this machine: a private process of the emulator gcp-storage-emulator.

It keeps objects in memory, knows resumable uploads, ranges, checksums and lifecycle rules. It does
not know permissions, generation preconditions and page sizes, and takes one request at a time.

``FaultyStorage`` stands before it, passes requests on and spoils those that a test names. A block
of an upload that comes again it answers as the service does, which ignores what it has already.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

HOST = "127.0.0.1"
_START_SECONDS = 20.0


class CloudStorage:
    """A running emulator. Clients reach it by the environment ``variables``, without credentials.

    Several tests share one: each takes a ``bucket`` of its own.
    """

    def __init__(self, directory: Path) -> None:
        self.port = _free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.variables = {"STORAGE_EMULATOR_HOST": self.url}
        self._numbers = itertools.count(1)
        command = [str(Path(sys.executable).parent / "gcp-storage-emulator"), "start", "--quiet"]
        with (directory / "emulator.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--in-memory", f"--host={HOST}", f"--port={self.port}"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"PATH": os.environ["PATH"]},
            )
        self._await()

    def bucket(self) -> str:
        """A new, empty bucket: ``gs://<name>``."""
        name = f"bucket-{next(self._numbers)}"
        self.request("POST", "/storage/v1/b?project=test", {"name": name})
        return f"gs://{name}"

    def objects(self, place: str) -> dict[str, int]:
        """Names, without the place ``gs://bucket/prefix``, and sizes of all objects below it."""
        bucket, _, prefix = place.removeprefix("gs://").partition("/")
        found = self.request("GET", f"/storage/v1/b/{bucket}/o?prefix={prefix}").get("items", ())
        return {item["name"].removeprefix(f"{prefix}/"): int(item["size"]) for item in found}

    def request(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """A request of the JSON API, and its answer."""
        asked = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:
            text = answer.read()
        return dict(json.loads(text)) if text else {}

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _await(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                socket.create_connection((HOST, self.port), timeout=1).close()
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise RuntimeError("the Cloud Storage emulator does not start") from None
                time.sleep(0.05)
            else:
                return


#: A status is answered instead of passing on. ``cut``: the connection breaks amid the request;
#: ``lost``: the request is carried out and its answer is not sent; ``truncated``: half of it is;
#: ``changed``: a byte of the body is another one when it arrives.
Kind = Literal["cut", "lost", "truncated", "changed"] | int


@dataclass
class Fault:
    """The next ``times`` requests, after ``skip`` others, of which method and path match."""

    kind: Kind
    request: str
    times: int = 1
    skip: int = 0

    def strikes(self, request: str) -> bool:
        if self.times == 0 or not re.search(self.request, request):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class FaultyStorage:
    """Faults before an emulator. ``counts`` are requests by method, ``struck`` those spoiled."""

    def __init__(self, behind: CloudStorage, *faults: Fault) -> None:
        self.behind = behind
        self.faults = list(faults)
        self.counts: Counter[str] = Counter()
        self.struck: Counter[Kind] = Counter()
        self._answers: dict[tuple[str, str], tuple[int, list[tuple[str, str]], bytes]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def serve(self) -> Iterator[str]:
        """The address of this storage, as STORAGE_EMULATOR_HOST."""
        owner = self

        class Handler(_Handler):
            storage = owner

        server = ThreadingHTTPServer((HOST, 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://{HOST}:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def fault(self, method: str, request: str) -> Kind | None:
        with self._lock:
            self.counts[method] += 1
            for fault in self.faults:
                if fault.strikes(request):
                    self.struck[fault.kind] += 1
                    return fault.kind
        return None

    def ask(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """The emulator's answer."""
        block = (path, headers.get("Content-Range", ""))
        if block in self._answers:
            return self._answers[block]
        connection = http.client.HTTPConnection(HOST, self.behind.port, timeout=30)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        told = answer.status, answer.getheaders(), answer.read()
        connection.close()
        if block[1] and answer.status < 400:
            self._answers[block] = told
        return told


class _Handler(BaseHTTPRequestHandler):
    storage: FaultyStorage

    def _pass_on(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        kind = self.storage.fault(self.command, f"{self.command} {self.path}")
        body = self.rfile.read(length // 2 if kind == "cut" else length)
        if isinstance(kind, int):
            told = json.dumps({"error": {"code": kind, "message": "a fault of the test"}})
            self._answer(kind, [("Content-Type", "application/json")], told.encode())
        elif kind == "cut":
            self._hang_up()
        else:
            if kind == "changed":
                body = body[:-1] + bytes([body[-1] ^ 1])
            headers = dict(self.headers.items())
            answer = self.storage.ask(self.command, self.path, headers, body)
            if kind == "lost":
                self._hang_up()
            else:
                self._answer(*answer, truncated=kind == "truncated")

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _pass_on  # noqa: N815

    def _answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, *, truncated: bool = False
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if truncated else body)
        if truncated:
            self._hang_up()

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Quietly."""


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])
