"""Catalog -> partitioned assets, checks, sensors, schedules, alerts: the factory."""
