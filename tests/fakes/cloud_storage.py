"""Cloud Storage on this machine: a private process of the emulator gcp-storage-emulator.

It keeps objects in memory, knows resumable uploads, ranges, checksums and lifecycle rules. It does
not know permissions, generation preconditions and page sizes, and takes one request at a time.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

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


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])
