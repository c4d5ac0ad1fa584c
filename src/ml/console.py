"""Helpers for the command line: days as arguments, days and tables as text, and the current user."""

from __future__ import annotations

import argparse
import getpass
import os
from collections.abc import Sequence
from datetime import date, timedelta

MAX_NAMED_DAYS = 5  # more days are printed as a span


def current_user() -> str:
    """The current user according to the operating system; recorded with their decisions."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"user {os.getuid()}"


def print_table(rows: Sequence[Sequence[object]]) -> None:
    """Print rows with aligned columns. None prints as –."""
    texts = [["–" if cell is None else str(cell) for cell in row] for row in rows]
    columns = range(max(map(len, texts), default=0))
    widths = [max(len(row[column]) for row in texts if column < len(row)) for column in columns]
    for row in texts:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip())


def parse_day(text: str) -> date:
    """A day as YYYY-MM-DD. Raises ArgumentTypeError."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: a day as YYYY-MM-DD is needed") from error


def parse_days(text: str) -> tuple[date, ...]:
    """Days in order: `1998-06-28`, `1998-06-28,1998-06-30` or `1998-06-01..1998-06-30` (both ends included)."""
    first, dots, last = text.partition("..")
    if not dots:
        return tuple(sorted({parse_day(day) for day in text.split(",")}))
    start, end = parse_day(first), parse_day(last)
    if end < start:
        raise argparse.ArgumentTypeError(f"{text!r}: ends before it starts")
    return tuple(start + timedelta(days=n) for n in range((end - start).days + 1))


def days_in_words(days: list[date]) -> str:
    """Each of a few days; of more than MAX_NAMED_DAYS, how many from which day to which. `days` are in order."""
    if len(days) <= MAX_NAMED_DAYS:
        return ", ".join(day.isoformat() for day in days)
    return f"{len(days)} days from {days[0]} to {days[-1]}"
