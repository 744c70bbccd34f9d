"""The Elation mirror: a hosted EHR database, rebuilt by its vendor about once a day."""
