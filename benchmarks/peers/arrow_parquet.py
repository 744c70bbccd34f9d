"""A connectorx Arrow stream to one Parquet file. Arguments: folder, table."""

import os
import sys
from pathlib import Path

import connectorx as cx
import pyarrow.parquet as pq

folder, table = Path(sys.argv[1]), sys.argv[2]
batches = cx.read_sql(
    os.environ["BENCH_PLAIN_URL"],
    f"SELECT * FROM {table}",
    return_type="arrow_stream",
    batch_size=50_000,
)
with pq.ParquetWriter(folder / f"{table}.parquet", batches.schema) as writer:
    for batch in batches:
        writer.write_batch(batch)
