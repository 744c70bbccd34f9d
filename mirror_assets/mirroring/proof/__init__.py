"""Proof that a partition is exact: against the source, the export or recorded digests."""
