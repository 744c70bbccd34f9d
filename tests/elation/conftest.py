"""What the tests of Elation's assets share with others."""

from __future__ import annotations

from tests.commons.conftest import database
from tests.orchestration.conftest import instance

__all__ = ["database", "instance"]
