"""Input digests: what a day of a node is to be built from, digested from the contents of its inputs' days.

For each table the content of a day is a digest of its rows. A window of facts has the sum of its days' hashes, so the
digest of any window takes one subtraction; a day without rows adds nothing to it. A snapshot counts with its
content, not with its day: the same price list sent again changes nothing.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import accumulate

from ml.graph.nodes import Input

_SIZE = 2**128


@dataclass(frozen=True)
class InputDigest:
    """What a day is to be built from. `own`: only what is of the day itself."""

    digest: str  # 16 hex digits
    own: str
    missing: tuple[str, ...] = ()  # tables that have nothing for this day


class Contents:
    """The content of one table per day."""

    def __init__(self, contents: Mapping[date, str]) -> None:
        self.by_day = dict(contents)
        self.days = sorted(contents)
        hashes = (_hash(day, contents[day]) for day in self.days)
        self._snapshots = [day for day in self.days if _has_rows(contents[day])]
        self._sums = [0, *accumulate(hashes, lambda total, each: (total + each) % _SIZE)]

    def window(self, last: date, back: int | None) -> str:
        """A digest, 32 hex digits, of the last `back` days up to `last` (None: of all days up to it)."""
        end = bisect_right(self.days, last)
        start = 0 if back is None else bisect_right(self.days, last - timedelta(days=back))
        return f"{(self._sums[end] - self._sums[start]) % _SIZE:032x}"

    def in_force(self, day: date, max_age: int | None = None) -> date | None:
        """The day of the snapshot that counts on `day`: the newest up to it, else the first. None without one.

        A snapshot that is older than `max_age` days counts as missing, and one without rows is none.
        """
        place = bisect_right(self._snapshots, day)
        if not place:
            return self._snapshots[0] if self._snapshots else None
        newest = self._snapshots[place - 1]
        return None if max_age is not None and (day - newest).days > max_age else newest

    def changed_since(self, before: Mapping[date, str], last: date, back: int | None) -> list[date]:
        """The days of a window that are new, removed or of other content than in `before`."""
        first = date.min if back is None else last - timedelta(days=back - 1)
        return sorted(
            day for day in {*before, *self.by_day} if first <= day <= last and before.get(day) != self.by_day.get(day)
        )


def input_digest(inputs: Sequence[Input], day: date, contents: Mapping[str, Contents]) -> InputDigest:
    """The input digest of a day of a node with these inputs. `contents`: of each table that they name."""
    parts, own, missing = [], [], []
    for each in inputs:
        table = contents.get(each.table) or Contents({})
        content = table.by_day.get(day, "")
        if each.kind == "facts":
            parts.append(f"{each.table}={table.window(day, each.back)}")
            own.append(f"{each.table}={content}")
        elif each.kind == "snapshot":
            in_force = table.in_force(day, each.max_age)
            content = table.by_day[in_force] if in_force else ""
            parts.append(f"{each.table}={content}")
        else:
            parts.append(f"{each.table}={content}")
            own.append(f"{each.table}={content}")
        if not content:
            missing.append(each.table)
    return InputDigest(_join(parts), _join(own), tuple(missing))


def _join(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:16]


def _has_rows(content: str) -> bool:
    return bool(content.strip("0"))


def _hash(day: date, content: str) -> int:
    """0 for a day without rows (all digits are 0): to a window it makes no difference whether such a day came."""
    if not _has_rows(content):
        return 0
    return int.from_bytes(hashlib.blake2b(f"{day}|{content}".encode(), digest_size=16).digest())
