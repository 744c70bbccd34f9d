"""The demo's sample quality-measure service, as a process of its own over the sample database."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mirror_assets.mirroring.storage import private_file, private_folder

_MODULE = "mirror_assets.sample.measure_service"
_START_SECONDS = 30
_HOST = "127.0.0.1"


@dataclass(frozen=True)
class MeasureService:
    """The service of one directory: its key, its port (kept over restarts), its process id."""

    directory: Path

    @property
    def url(self) -> str:
        return f"http://{_HOST}:{(self.directory / 'port').read_text()}"

    @property
    def key(self) -> str:
        """The API key with which it knows Elation's feed."""
        path = private_folder(self.directory) / "elation.key"
        if not path.exists():
            with private_file(path) as file:
                file.write(secrets.token_hex(24).encode())
        return path.read_text()

    def start(self, database_url: str) -> MeasureService:
        """Start it unless it runs. Raises RuntimeError when it does not answer."""
        if self._pid() is not None:
            return self
        private_folder(self.directory)
        port = self._choose_port()
        env = {"MEASURE_SERVICE_URL": database_url, "API_KEY_ELATION": self.key}
        env |= {f"API_KEY_{source}": secrets.token_hex(24) for source in ("ABLE", "COMMONS")}
        log = private_file(self.directory / "service.log")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", _MODULE, "--port", str(port)],
                env=os.environ | env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        (self.directory / "pid").write_text(str(process.pid))
        (self.directory / "port").write_text(str(port))
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the measure service: see {self.directory / 'service.log'}")
            time.sleep(0.1)
        return self

    def remove(self) -> None:
        """Stop it and delete its files."""
        pid = self._pid()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            for _attempt in range(100):
                if self._pid() is None:
                    break
                time.sleep(0.1)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _choose_port(self) -> int:
        kept = self.directory / "port"
        with suppress(OSError, ValueError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((_HOST, int(kept.read_text())))
            return int(kept.read_text())
        with socket.socket() as probe:
            probe.bind((_HOST, 0))
            return int(probe.getsockname()[1])

    def _pid(self) -> int | None:
        """The process, while it is alive and still this service."""
        try:
            pid = int((self.directory / "pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if _MODULE.encode() in command else None


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection((_HOST, port), timeout=1):
        return True
    return False
