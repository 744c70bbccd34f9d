"""dlt with its connectorx backend into a DuckDB file. Arguments: folder, table names."""

import os
import sys
from pathlib import Path

import dlt
from dlt.sources.sql_database import sql_table

folder, tables = Path(sys.argv[1]), sys.argv[2:]
plain = os.environ["BENCH_PLAIN_URL"]
pipeline = dlt.pipeline(
    "bench",
    pipelines_dir=str(folder),
    destination=dlt.destinations.duckdb(str(folder / "bench.duckdb")),
    dataset_name="copied",
)
resources = [
    sql_table(
        credentials=os.environ["BENCH_URL"],
        table=table,
        backend="connectorx",
        backend_kwargs={"conn": plain},
    )
    for table in tables
]
pipeline.run(resources, write_disposition="replace").raise_on_failed_jobs()
