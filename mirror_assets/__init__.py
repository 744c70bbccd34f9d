"""Operational health databases as truthful daily partitions: a Dagster asset graph."""
