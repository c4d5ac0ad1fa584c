"""Days that arrive as in production: landed, copied by Data Factory, ingested."""

from __future__ import annotations

import pytest

from tests.support.cloud.standins import Standins
from tests.support.data.copied_days import CopiedDays


@pytest.fixture(scope="module")
def copied_days(cloud: Standins) -> CopiedDays:
    """Landing, a lake and the real Copy between them, shared by a module's tests."""
    return CopiedDays(cloud)
