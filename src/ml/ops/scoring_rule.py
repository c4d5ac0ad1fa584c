"""Which version scores a day: the one whose scores of the day people know, unless there is a reason for the champion.

A corrected day is scored by the version that first scored it, so that a correction changes the data and not the model. If
that version was rolled back as wrong, the version that took its place scores the day, and so on. A day that was never
scored, and a requested one, is scored by the champion of now; a scoring that answered a request counts as the first one
from then on. The rule reads what was recorded: no business day is compared with the clock of the production log.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TypeVar

from ml.errors import StageError
from ml.ops import built_days, production_log, score_requests
from ml.ops.built_days import BuiltDay
from ml.ops.production_log import Entry, replacement_of
from ml.ops.score_requests import ScoreRequest, find_answer

Record = TypeVar("Record", BuiltDay, ScoreRequest)


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """The version that scores a day."""

    entry: Entry  # which put it into production: its digest, feature tables and population are used
    because: str  # a clause: which rule chose it
    request: ScoreRequest | None = None  # that this scoring answers


def choose_scorer(
    history: Sequence[Entry], scorings: Sequence[BuiltDay], requests: Sequence[ScoreRequest]
) -> Scorer | None:
    """The version that scores a day now; None without a champion.

    `history` is the model's production log, `scorings` the journal's entries of the day's scores in their order,
    `requests` those of the day, oldest first. Raises StageError when the version is not in the log.
    """
    if not history:
        return None
    champion = history[-1]
    if requests and find_answer(requests[-1], scorings, history) is None:
        return Scorer(
            entry=champion,
            because=f"requested ({requests[-1].why}), so champion {champion.version} scores it",
            request=requests[-1],
        )
    scored = [scoring for scoring in scorings if scoring.model_version is not None]
    if not scored:
        return Scorer(entry=champion, because=f"never scored before, so champion {champion.version} scores it")
    first, how = scored[0], "first scored it"
    for request in requests:
        answer = find_answer(request, scored, history)
        if answer is not None:
            first, how = answer, "scored it at the last request"
    return _follow_rollbacks(first, how, history)


def _follow_rollbacks(scoring: BuiltDay, how: str, history: Sequence[Entry]) -> Scorer:
    """The newest entry of the version of this scoring, or of the one that took its place when it was rolled back."""
    assert scoring.model_version is not None
    version = scoring.model_version
    because, passed = f"version {version} {how}", {version}
    while (rollback := replacement_of(version, history)) is not None and rollback.version not in passed:
        because += f", and was rolled back: version {rollback.version} took its place"
        version = rollback.version
        passed.add(version)
    entries = [entry for entry in history if entry.version == version]
    if not entries:
        model = history[-1].model
        raise StageError(
            f"{scoring.day}: {because}; it is not in the production log of {model}, so its files cannot be checked. "
            f"Let the champion score the day: python -m ml score --model {model} --day {scoring.day} --champion"
        )
    return Scorer(entry=entries[-1], because=because)


@dataclass(frozen=True)
class Scorers:
    """The version that scores each day of a model, from the tables read once."""

    history: Sequence[Entry]
    scorings: Mapping[date, Sequence[BuiltDay]]
    requests: Mapping[date, Sequence[ScoreRequest]]

    def of(self, day: date) -> Scorer | None:
        """See `choose_scorer`."""
        return choose_scorer(self.history, self.scorings.get(day, ()), self.requests.get(day, ()))

    def tables(self, day: date) -> tuple[str, ...] | None:
        """The tables that the day's scores are read from; None: those of the model's file.

        Of a scored day these are the tables of the version that scored it last, else of the one that will score it.
        """
        scored = [each.model_version for each in self.scorings.get(day, ()) if each.model_version is not None]
        if scored:
            entries = [entry for entry in self.history if entry.version == scored[-1]]
            return entries[-1].tables if entries else None
        scorer = self.of(day)
        return None if scorer is None else scorer.entry.tables

    @property
    def open_days(self) -> dict[date, ScoreRequest]:
        """The newest unanswered request of each day that has one."""
        days = {}
        for day, requests in self.requests.items():
            if find_answer(requests[-1], self.scorings.get(day, ()), self.history) is None:
                days[day] = requests[-1]
        return days


def read_scorers(model: str, journal: Iterable[BuiltDay] | None = None) -> Scorers:
    """The versions that score the days of a model now. `journal`: its entries, if they were read already."""
    node = f"{model}.score"
    scorings = built_days.read_entries(node=node) if journal is None else (e for e in journal if e.node == node)
    return Scorers(production_log.read_history(model), _by_day(scorings), _by_day(score_requests.read(model)))


def _by_day(records: Iterable[Record]) -> Mapping[date, Sequence[Record]]:
    days: defaultdict[date, list[Record]] = defaultdict(list)
    for record in records:
        days[record.day].append(record)
    return days
