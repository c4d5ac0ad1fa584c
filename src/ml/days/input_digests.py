"""Input digests: which ingested content the features of a day are built from.

The features of a day are built from all ingested days up to it, so its input digest covers the contents of those
days.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import date

from ml.ops.ingested_days import IngestedDay


def chain(contents: Mapping[date, str]) -> dict[date, str]:
    """Per day, 16 hex digits that digest its content and the contents of all days before it."""
    digests, so_far = {}, b""
    for day, content in sorted(contents.items()):
        so_far = hashlib.sha256(so_far + f"{day}|{content}\n".encode()).digest()
        digests[day] = so_far.hex()[:16]
    return digests


def as_of(digests: Mapping[date, str], day: date) -> str:
    """The digest in `digests` (from `chain`) of the newest day up to `day`; "" when there is none."""
    newest = max((known for known in digests if known <= day), default=None)
    return "" if newest is None else digests[newest]


def changed_days(before: Mapping[date, IngestedDay], now: Mapping[date, IngestedDay], day: date) -> list[date]:
    """The days up to `day` that are new, removed or of other content."""
    contents_before = {known: ingested.content for known, ingested in before.items()}
    contents_now = {known: ingested.content for known, ingested in now.items()}
    return sorted(
        known for known in {*before, *now} if known <= day and contents_before.get(known) != contents_now.get(known)
    )
