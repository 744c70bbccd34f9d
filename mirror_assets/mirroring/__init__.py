"""The engine: copies one table of one snapshot truthfully. Knows nothing of Dagster."""
