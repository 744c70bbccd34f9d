"""The Commons mirror: the care platform's PostgreSQL database, read live twice a day."""
