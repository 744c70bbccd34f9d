"""Catalog -> partitioned assets, checks, sensors, schedules, alerts: the factory."""

import warnings

import dagster as dg

# backfill_policy and include_sources: each use of them would print a paragraph
warnings.filterwarnings("ignore", category=dg.BetaWarning)
