"""Sample sources: private database servers and an invented Elation database to mirror."""
