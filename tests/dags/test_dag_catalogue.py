"""docs/dags.md is current."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docs import catalogue

PAGE = Path(__file__).resolve().parents[2] / "docs" / "dags.md"


def test_the_catalogue_matches_the_dags(dags: dict[str, Any]) -> None:
    assert PAGE.read_text(encoding="utf-8") == catalogue.render(dags), (
        "the Dags have changed: run `python -m docs.catalogue > docs/dags.md`"
    )
