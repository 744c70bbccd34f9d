"""COPY through a cleaner of single rows, csv.reader to csv.writer. Arguments: folder, table."""

import csv
import os
import sys
import threading
from pathlib import Path

import psycopg2

folder, table = Path(sys.argv[1]), sys.argv[2]
reading, writing = os.pipe()


def clean() -> None:
    with (
        open(reading, newline="", encoding="utf-8") as source,  # noqa: PTH123 - a descriptor
        (folder / f"{table}.csv").open("w", newline="", encoding="utf-8") as target,
    ):
        writer = csv.writer(target)
        for row in csv.reader(source):
            writer.writerow([v.replace("\r", " ").replace("\n", " ").strip() for v in row])


cleaner = threading.Thread(target=clean)
cleaner.start()
with psycopg2.connect(os.environ["BENCH_PLAIN_URL"]) as connection, open(writing, "wb") as pipe:  # noqa: PTH123
    connection.cursor().copy_expert(f"COPY {table} TO STDOUT (FORMAT csv)", pipe)
cleaner.join()
