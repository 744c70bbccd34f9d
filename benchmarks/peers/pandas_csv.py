"""PyMySQL through pandas, in chunks of about 50 MB, to CSV. Arguments: folder, table."""

import os
import sys
from pathlib import Path

import pandas as pd
from sqlalchemy import create_engine, text

CHUNK_BYTES = 50_000_000
folder, table = Path(sys.argv[1]), sys.argv[2]
engine = create_engine(os.environ["BENCH_URL"]).execution_options(stream_results=True)
with engine.connect() as connection:
    sample = pd.read_sql(text(f"SELECT * FROM {table} LIMIT 1000"), connection)
    rows = max(1, int(CHUNK_BYTES / (sample.memory_usage(deep=True, index=False).sum() / 1000)))
    chunks = pd.read_sql(text(f"SELECT * FROM {table}"), connection, chunksize=rows)
    for number, chunk in enumerate(chunks):
        chunk.to_csv(folder / f"{table}_{number}.csv", index=False)
