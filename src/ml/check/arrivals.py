"""Generated rows of a source, as received: texts that its cleaning query accepts, among others that it may refuse.

Nobody has to describe the columns: the query's own outcomes say which texts it accepts in which column.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

from ml.check.days import CUTOFF

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, str | None]
Probe = Callable[["pa.Table"], "pa.Table"]  # bronze rows to the cleaning query's outcomes
Value = int | float | str | bool

KEYS = ("_id", "_day", "_file", "_row")  # columns of bronze besides those of the source
IDS = tuple(str(10000 + n) for n in range(1, 61))
_MORE_IDS = ("10001.0", "007", "A1", "a1", "é1", "日本", " x ", "")
_NUMBERS = ("1", "2", "3", "0", "-1", "-2.5", "0.1", "0.2", "0.3", "9.99", "100", "0.0001", "1e3", "+4", "0.00005")
_TIMES = (
    "{day}T12:00:00", "{day}", "{day}T00:00:00", "{day} 23:59:59.999999", "{day}T12:00:00Z", "{day}T10:30:00+00:00",
    "{next}T00:00:00", "{day}T25:00:00", "29.02.2024",
)  # fmt: skip
_WORDS = ("a", "Z", "z", "é", "日本", "it's", "GB", "true", "false", "yes", "no")
_WRONG = ("1,5", "nan", "inf", "1e400", "--1", "\ufffd", "x" * 300, "';--", None)
_SILVER_ROWS, _SNAPSHOT_ROWS = 700, 40


@dataclass(frozen=True)
class Accepted:
    """Of each column the texts that were accepted in an otherwise accepted row, and those that were not."""

    base: Row
    good: Mapping[str, Sequence[str | None]]
    bad: Mapping[str, Sequence[str | None]]
    literals: Collection[str] = ()  # that queries compare with: every second value is one of them, where accepted


def bronze_rows(columns: Sequence[str], rows: Sequence[tuple[date, str, Row]]) -> pa.Table:
    """Rows (day, file, texts) as the cleaning query reads them, in the order of day, file and row."""
    import pyarrow as pa

    ordered = sorted(rows, key=lambda row: row[:2])
    counts: dict[tuple[date, str], int] = {}
    numbers = []
    for day, file, _ in ordered:
        counts[day, file] = counts.get((day, file), -1) + 1
        numbers.append(counts[day, file])
    table = {
        "_id": pa.array(range(len(rows)), pa.int64()),
        "_day": pa.array([day for day, _, _ in ordered], pa.date32()),
        "_file": pa.array([file for _, file, _ in ordered], pa.string()),
        "_row": pa.array(numbers, pa.int64()),
    }
    texts = [{name: _text(text.get(name), day) for name in columns} for day, _, text in ordered]
    return pa.table(table | {name: pa.array([row[name] for row in texts], pa.string()) for name in columns})


def _text(text: str | None, day: date) -> str | None:
    """As bronze has it: trimmed, NULL where empty."""
    if text is None:
        return None
    return text.replace("{day}", str(day)).replace("{next}", str(day + timedelta(1))).strip() or None


def find_accepted(
    columns: Sequence[str], ids: Collection[str], literals: Sequence[str], settings: Mapping[str, Value], probe: Probe
) -> Accepted | None:
    """Find out which texts the cleaning query accepts. None when no row was accepted."""
    pools = {name: _pool(name in ids, literals, settings) for name in columns}
    base = _find_base(columns, pools, probe)
    if base is None:
        return None
    tries = [(name, text) for name in columns for text in pools[name]]
    outcomes = _outcomes(columns, [base | {name: text} for name, text in tries], probe)
    good: dict[str, list[str | None]] = {name: [] for name in columns}
    bad: dict[str, list[str | None]] = {name: [] for name in columns}
    for (name, text), (outcome, _) in zip(tries, outcomes, strict=True):
        (good if outcome == "silver" else bad)[name].append(text)
    good = {name: texts or [base[name]] for name, texts in good.items()}
    return Accepted(base, good, bad, frozenset(literals))


def _pool(is_id: bool, literals: Iterable[str], settings: Mapping[str, Value]) -> list[str | None]:
    """Texts to try in a column, the most usual ones first."""
    if is_id:
        return list(dict.fromkeys((*IDS, *_MORE_IDS, "\ufffd", None)))
    numbers = [n for n in settings.values() if isinstance(n, (int, float)) and not isinstance(n, bool)]
    limits = [str(each) for n in numbers for each in (n, n + 1, -n, -n - 1)]
    return list(dict.fromkeys((*_NUMBERS, *_TIMES, *_WORDS, *literals, *limits, *_WRONG)))


def _find_base(columns: Sequence[str], pools: Mapping[str, Sequence[str | None]], probe: Probe) -> Row | None:
    """One accepted row: of the column that a refusal names, each text is tried until the refusal names another."""
    base: Row = {name: pools[name][0] for name in columns}
    for _ in range(2 * len(columns) + 2):
        outcome, refused = _outcomes(columns, [base], probe)[0]
        if outcome == "silver":
            return base
        tried = [refused] if refused is not None and refused in pools else list(columns)
        tries = [{**base, name: text} for name in tried for text in pools[name]]
        outcomes = list(zip(tries, _outcomes(columns, tries, probe), strict=True))
        better = [row for row, (outcome, _) in outcomes if outcome == "silver"]
        better += [row for row, (outcome, column) in outcomes if outcome != "silver" and column != refused]
        if not better:
            return None
        base = better[0]
    return None


def _outcomes(columns: Sequence[str], rows: Sequence[Row], probe: Probe) -> list[tuple[str, str | None]]:
    """Outcome and refused column of each row. Each is on a day of its own, so that no row contradicts another."""
    days = [CUTOFF + timedelta(n) for n in range(len(rows))]
    result = probe(bronze_rows(columns, [(day, "f.csv", row) for day, row in zip(days, rows, strict=True)]))
    found = {
        day: (outcome, column)
        for day, outcome, column in zip(
            *(result[name].to_pylist() for name in ("day", "outcome", "refused_column")), strict=True
        )
    }
    return [found.get(day, ("", None)) for day in days]


def fact_rows(accepted: Accepted, keys: Sequence[str], days: Sequence[date]) -> pa.Table:
    """Rows of facts: mostly accepted ones. Each value of a key has few days of its own, so that every span has
    values with nothing in it. `keys` take turns; the other key columns have values without such days."""
    chance = random.Random(7)
    rows: list[tuple[date, str, Row]] = []
    own, common = _split_ids(accepted, keys)
    days_of = {(key, text): _few(chance, days) for key in keys for text in own[key]}
    for number in range(_SILVER_ROWS):
        row = _row(chance, accepted)
        day = chance.choice(days)
        if keys:
            key = keys[number % len(keys)]
            for other in keys:
                row[other] = chance.choice(common[other])
            row[key] = own[key][number // len(keys) % len(own[key])]
            day = chance.choice(days_of[key, row[key]])
        _spoil(chance, accepted, row)
        rows += [(day, chance.choice(("a.csv", "b.csv")), row)] * (2 if number % 23 == 0 else 1)
    return bronze_rows(list(accepted.base), rows)


def snapshot_rows(accepted: Accepted, keys: Sequence[str], days: Sequence[date]) -> pa.Table:
    """The same for a reference table: on each day most values of the first key, with values that change from day to day."""
    chance = random.Random(7)
    rows: list[tuple[date, str, Row]] = []
    ids = {key: _texts(accepted, key) for key in keys[:1]}
    for day in days:
        for number in range(_SNAPSHOT_ROWS):
            row = _row(chance, accepted)
            for key, texts in ids.items():
                row[key] = texts[number % len(texts)]
            if number % 9 == 0:
                _spoil(chance, accepted, row)
            rows += [(day, "a.csv", row)] * (2 if number % 23 == 0 else 1)
    return bronze_rows(list(accepted.base), rows)


def _split_ids(
    accepted: Accepted, keys: Sequence[str]
) -> tuple[dict[str, list[str | None]], dict[str, list[str | None]]]:
    """Of each key the values with days of their own, and those without: three of four, and one of four."""
    own: dict[str, list[str | None]] = {}
    common: dict[str, list[str | None]] = {}
    for key in keys:
        ids = _texts(accepted, key)
        own[key] = [text for place, text in enumerate(ids) if place % 4] or ids
        common[key] = [text for place, text in enumerate(ids) if not place % 4] or ids
    return own, common


def _texts(accepted: Accepted, key: str) -> list[str | None]:
    """The accepted values of a key, without NULL unless there is no other."""
    return [text for text in accepted.good[key] if text is not None] or [accepted.base[key]]


def _few(chance: random.Random, days: Sequence[date]) -> list[date]:
    return chance.sample(list(days), min(len(days), chance.choice((1, 1, 2, 2, 3, 5, 9))))


def _row(chance: random.Random, accepted: Accepted) -> Row:
    row: Row = {}
    for name in accepted.base:
        likely = [text for text in accepted.good[name] if text in accepted.literals]
        row[name] = chance.choice(likely if likely and chance.random() < 1 / 2 else accepted.good[name])
    return row


def _spoil(chance: random.Random, accepted: Accepted, row: Row) -> None:
    """Every eighth row gets a text that is probably refused."""
    if chance.random() < 1 / 8:
        name = chance.choice(list(row))
        if accepted.bad[name]:
            row[name] = chance.choice(accepted.bad[name])
