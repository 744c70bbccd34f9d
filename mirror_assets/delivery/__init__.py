"""Delivery: hands records to other systems over HTTP, effectively once."""
