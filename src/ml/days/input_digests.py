"""Digests of the ingested days that a day's features are made from."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from datetime import date

from ml.ops.ingested_days import IngestedDay

log = logging.getLogger(__name__)


def chain(contents: Mapping[date, str]) -> dict[date, str]:
    """Of each day, 16 hex digits that tell its content and those of all days before it."""
    found, so_far = {}, b""
    for day, content in sorted(contents.items()):
        so_far = hashlib.sha256(so_far + f"{day}|{content}\n".encode()).digest()
        found[day] = so_far.hex()[:16]
    return found


def as_of(inputs: Mapping[date, str], day: date) -> str:
    """What `chain` gives the newest day up to `day`; "" when there is none."""
    newest = max((known for known in inputs if known <= day), default=None)
    return "" if newest is None else inputs[newest]


def changed_days(before: Mapping[date, IngestedDay], now: Mapping[date, IngestedDay], day: date) -> list[date]:
    """The days up to `day` that are new, gone or of other content."""

    def content(of: Mapping[date, IngestedDay], one: date) -> str | None:
        return of[one].content if one in of else None

    return sorted(one for one in {*before, *now} if one <= day and content(before, one) != content(now, one))
