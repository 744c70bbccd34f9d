"""What a push makes of 15 connections on loopback, when the service takes 20 ms for each post.

The service is a process of its own that waits and accepts; arithmetic allows 750 posts per second.
``python -m benchmarks.delivery serve`` runs it, ``.. push URL`` is one measured push.
"""

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path

from benchmarks.config import ROOT, _size
from benchmarks.sections import Section, at_least, at_most
from benchmarks.timing import Case, Taken, median, once

CONNECTIONS = 15
SERVICE_SECONDS = 0.02
MEMBERS = _size("MEMBERS", 10_000)
ELEMENTS = 8
RUNS = _size("RUNS", 3)
_DAY = date(2021, 3, 5)
_LAKE = ROOT / "delivery"
_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK"


def delivery() -> Section:
    """Members per second: all of them new, then none of them changed."""
    with _service() as url:
        new, same = [], []
        for _ in range(RUNS):
            shutil.rmtree(_LAKE, ignore_errors=True)
            new.append(_push(url))
            same.append(_push(url))
    shutil.rmtree(_LAKE, ignore_errors=True)
    rate = MEMBERS / median(new, "said")
    unchanged = MEMBERS / median(same, "said")
    allowed = CONNECTIONS / SERVICE_SECONDS
    return Section(
        f"Pushing {MEMBERS:,} members of {ELEMENTS} measures each",
        ("", "members per second", "CPU s", "peak MB"),
        [
            ["all new, ledger in a DuckLake", rate, median(new, "cpu"), median(new, "peak")],
            ["none changed", unchanged, median(same, "cpu"), median(same, "peak")],
            [f"what {CONNECTIONS} connections allow", allowed, None, None],
        ],
        note=f"{CONNECTIONS} connections on loopback, {SERVICE_SECONDS * 1000:.0f} ms of service"
        " time, the ledger written on the way. CPU and memory are of the whole process.",
        checks=[
            at_least("members per second, all new", rate, 500),
            at_most("peak memory of a push", median(new, "peak"), 400, "MB"),
        ],
    )


def _push(url: str) -> Taken:
    command = [sys.executable, "-m", "benchmarks.delivery", "push", url]
    return once(Case("a push", command, {"PYTHONPATH": str(Path.cwd())}))


@contextmanager
def _service() -> Iterator[str]:
    ROOT.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.delivery", "serve"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


async def _serve() -> None:
    """A keep-alive HTTP server that reads a post, waits, and accepts it; as cheap as can be."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            while head := await _head(reader):
                lines = head.decode().lower().split("\r\n")
                length = next(line[15:] for line in lines if line.startswith("content-length:"))
                await reader.readexactly(int(length))
                await asyncio.sleep(SERVICE_SECONDS)
                writer.write(_OK)

    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    server = await asyncio.start_server(connected, sock=listener)
    await server.serve_forever()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


def _measured(url: str) -> float:
    from mirror_assets.delivery.client import Target
    from mirror_assets.delivery.push import Delivery, Record, push
    from mirror_assets.elation.quality_measures import warehouse_ledger
    from mirror_assets.mirroring.warehouses.ducklake import DuckLakeWarehouse

    def records() -> Iterator[Record]:
        for number in range(MEMBERS):
            member = f"00000000-0000-4000-a000-{number:012}"
            element = {
                "userId": None,
                "setOn": "2021-03-05T08:00:00Z",
                "id": number % 17,
                "status": "closed",
                "reason": "Hemoglobin A1c level at most 9.0 percent",
            }
            yield Record(member, json.dumps([element] * ELEMENTS).encode(), ELEMENTS)

    lake = DuckLakeWarehouse(
        f"ducklake:sqlite:{_LAKE}/lake.sqlite", _LAKE / "lake", ROOT / "extensions"
    )
    path, tried = "/1.0/member/{recipient}/measures", "post the measures of a member"
    made = Delivery("bench", path, tried, _DAY, "run")
    target = Target(url, {"apiKey": "key"}, connections=CONNECTIONS)
    with closing(lake):
        began = time.monotonic()
        report = push(records(), made, target, warehouse_ledger(lake))
        seconds = time.monotonic() - began
    if report.posted + report.unchanged != MEMBERS:
        sys.exit(report.sentence)
    return seconds


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(_serve())
    else:
        print(json.dumps(_measured(sys.argv[2])))
