"""What every command shares on a terminal: days as arguments, tables, and who runs it."""

from __future__ import annotations

import argparse
import getpass
import logging
import os
from collections.abc import Sequence
from datetime import date, timedelta

log = logging.getLogger(__name__)


def current_user() -> str:
    """Who runs this, as the operating system says; kept with what they decide."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"user {os.getuid()}"


def print_table(rows: Sequence[Sequence[object]]) -> None:
    """Print rows for people, columns in line; what is None is told as such, and not left out."""
    texts = [["–" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [
        max(len(row[place]) for row in texts if place < len(row)) for place in range(max(map(len, texts), default=0))
    ]
    for row in texts:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip())


def parse_day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: a day as YYYY-MM-DD is needed") from error


def parse_days(text: str) -> tuple[date, ...]:
    """`1998-06-28`, `1998-06-28,1998-06-30` or `1998-06-01..1998-06-30` (both ends included)."""
    first, dots, last = text.partition("..")
    if not dots:
        return tuple(sorted({parse_day(day) for day in text.split(",")}))
    start, end = parse_day(first), parse_day(last)
    if end < start:
        raise argparse.ArgumentTypeError(f"{text!r}: ends before it starts")
    return tuple(start + timedelta(days=n) for n in range((end - start).days + 1))


MAX_NAMED_DAYS = 5  # days that are named; more are told as a span


def days_in_words(days: list[date]) -> str:
    """Some days in words: each by name, or how many from when to when."""
    if len(days) <= MAX_NAMED_DAYS:
        return ", ".join(day.isoformat() for day in days)
    return f"{len(days)} days from {days[0]} to {days[-1]}"
