"""Who scores a day: the version that first scored it, the one that replaced it when it was wrong, or the champion of now."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from ml.errors import StageError
from ml.ops import built_days, production_log, score_requests
from ml.ops.built_days import BuiltDay
from ml.ops.production_log import Entry
from ml.ops.score_requests import ScoreRequest
from ml.ops.scoring_rule import Scorers, choose_scorer, read_scorers

DAY = date(1998, 6, 30)
START = datetime(2026, 1, 1, tzinfo=UTC)


def log(*changes: str) -> list[Entry]:
    """A production log: "1" promotes version 1, "-2 1" rolls version 2 back to version 1."""
    entries: list[Entry] = []
    for number, change in enumerate(changes, 1):
        *wrong, version = change.split()
        before = wrong[0].removeprefix("-") if wrong else (entries[-1].version if entries else None)
        entries.append(
            Entry(
                number=number, kind="rollback" if wrong else "promotion", model="m", version=version, before=before,
                digest=f"sha-{version}", run_key="k", run="", by="", why=(), at=(START + timedelta(number)).isoformat(),
                features={f"table_{version}": ("x",)},
            )
        )  # fmt: skip
    return entries


def scored(*versions: str | None) -> list[BuiltDay]:
    """The journal of a day that was scored by these versions, one hour after the other; None: no champion."""
    return [
        BuiltDay(
            node="m.score", day=DAY, run_key=f"s{n}", inputs="i", version=n, rows=1, model_version=version,
            at=START + timedelta(hours=n),
        )
        for n, version in enumerate(versions)
    ]  # fmt: skip


def request(champion: int, hours: float, run_key: str = "r") -> ScoreRequest:
    at = START + timedelta(hours=hours)
    return ScoreRequest(model="m", day=DAY, champion=champion, run_key=run_key, why="by alice", at=at)


def version(entries: list[Entry], scorings: list[BuiltDay], *requests: ScoreRequest) -> str | None:
    scorer = choose_scorer(entries, scorings, requests)
    return scorer and scorer.entry.version


def test_without_a_champion_nobody_scores() -> None:
    assert choose_scorer([], [], [request(1, 1)]) is None


@pytest.mark.parametrize(
    ("entries", "scorings", "expected"),
    [
        pytest.param(log("1", "2"), scored(), "2", id="a-day-never-scored-has-the-champion"),
        pytest.param(log("1", "2"), scored(None, None), "2", id="without-a-champion-is-never-scored"),
        pytest.param(log("1", "2"), scored("1"), "1", id="a-scored-day-keeps-its-version"),
        pytest.param(log("1", "2"), scored(None, "1"), "1", id="the-first-scoring-that-had-a-champion"),
        pytest.param(log("1", "2", "3"), scored("1", "3"), "1", id="the-first-and-not-the-last"),
        pytest.param(log("1", "2", "-2 1"), scored("2"), "1", id="rolled-back-means-the-one-that-took-its-place"),
        pytest.param(log("1", "2", "-2 1"), scored("1"), "1", id="the-one-rolled-back-to-keeps-its-days"),
        pytest.param(
            log("1", "2", "3", "-3 2", "-2 1"), scored("3"), "1", id="a-chain-of-rollbacks-is-followed-to-its-end"
        ),
        pytest.param(
            log("1", "2", "-2 1", "3", "4"), scored("2"), "1", id="a-later-champion-does-not-get-days-of-a-wrong-one"
        ),
        pytest.param(
            log("1", "2", "-2 1", "3", "-3 1"), scored("2"), "1", id="a-rollback-of-another-version-does-not-matter"
        ),
    ],
)
def test_a_day_and_its_version(entries: list[Entry], scorings: list[BuiltDay], expected: str) -> None:
    assert version(entries, scorings) == expected


def test_business_days_are_not_compared_with_the_clock_of_the_log() -> None:
    """A history of 1998 is loaded after version 2 was promoted in 2026: the day has no scores, so version 2 scores it."""
    assert log("1")[0].moment.date() > DAY
    assert version(log("1", "2"), scored()) == "2"


def test_the_entry_has_the_digest_and_the_tables_of_its_version() -> None:
    scorer = choose_scorer(log("1", "2"), scored("1"), [])
    assert scorer is not None
    assert (scorer.entry.digest, scorer.entry.tables) == ("sha-1", ("features.table_1",))


def test_a_version_that_is_not_in_the_log_is_refused_with_the_remedy() -> None:
    with pytest.raises(StageError, match=f"1998-06-30: version 9 first scored it; .* --day {DAY} --champion"):
        choose_scorer(log("1"), scored("9"), [])


class TestRequests:
    def test_an_open_request_has_the_champion_of_now(self) -> None:
        assert version(log("1", "2"), scored("1"), request(2, 1)) == "2"
        assert version(log("1", "2", "3"), scored("1"), request(2, 1)) == "3", "not the champion when it was requested"

    def test_after_its_answer_the_day_belongs_to_the_version_that_answered(self) -> None:
        assert version(log("1", "2", "3"), scored("1", "2"), request(2, 0.5)) == "2"
        assert version(log("1", "2", "3"), scored("1", "2", "2"), request(2, 0.5)) == "2"

    def test_the_last_of_several_answers_counts(self) -> None:
        requests = request(2, 0.5, "a"), request(3, 1.5, "b")
        assert version(log("1", "2", "3", "4"), scored("1", "2", "3"), *requests) == "3"

    def test_the_version_that_answered_and_was_wrong_is_replaced(self) -> None:
        assert version(log("1", "2", "-2 1", "3"), scored("1", "2"), request(2, 0.5)) == "1"

    def test_a_scoring_by_an_earlier_version_that_was_on_its_way_is_no_answer(self) -> None:
        assert version(log("1", "2"), scored("1", "1"), request(2, 0.5)) == "2"

    def test_a_scoring_before_the_request_is_no_answer(self) -> None:
        assert version(log("1", "2"), scored("1", "2"), request(2, 1.5)) == "2"
        assert list(score_requests.open_requests([request(2, 1.5)], scored("1", "2"), log("1", "2"))) == [DAY]

    def test_a_rollback_before_the_answer_answers_by_the_one_that_took_the_place(self) -> None:
        entries = log("1", "2", "-2 1")
        assert version(entries, scored("2"), request(2, 0.5)) == "1"
        assert score_requests.open_requests([request(2, 0.5)], scored("2", "1"), entries) == {}

    def test_a_promotion_after_the_answer_opens_nothing(self) -> None:
        assert score_requests.open_requests([request(2, 0.5)], scored("1", "2"), log("1", "2", "3")) == {}

    @pytest.mark.parametrize(
        ("scorings", "requests", "words"),
        [
            pytest.param(scored(), [], "never scored before, so champion 2 scores it", id="never-scored"),
            pytest.param(scored("1"), [], "version 1 first scored it", id="first"),
            pytest.param(scored("1"), [request(2, 1)], "requested (by alice), so champion 2 scores it", id="requested"),
            pytest.param(scored("1", "2"), [request(2, 0.5)], "version 2 scored it at the last request", id="answered"),
        ],
    )
    def test_the_rule_is_told(self, scorings: list[BuiltDay], requests: list[ScoreRequest], words: str) -> None:
        scorer = choose_scorer(log("1", "2"), scorings, requests)
        assert scorer is not None
        assert scorer.because == words

    def test_a_chain_of_rollbacks_is_told(self) -> None:
        scorer = choose_scorer(log("1", "2", "3", "-3 2", "-2 1"), scored("3"), [])
        assert scorer is not None
        assert scorer.because == (
            "version 3 first scored it, and was rolled back: version 2 took its place, and was rolled back: "
            "version 1 took its place"
        )


class TestTables:
    @pytest.fixture(autouse=True)
    def _lake(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LAKE_URI", f"file://{tmp_path}")

    def test_an_empty_lake_has_no_requests(self) -> None:
        assert score_requests.read("m") == []
        assert score_requests.read_open("m") == {}

    def test_a_request_is_open_until_the_day_is_scored(self) -> None:
        entry = production_log.claim(log("1")[0], None)
        score_requests.write([replace(request(entry.number, 0), at=None)])
        (opened,) = score_requests.read_open("m").values()
        assert (opened.day, opened.why, opened.champion) == (DAY, "by alice", 1)
        built_days.write(scored("1"))
        assert score_requests.read_open("m") == {}

    def test_a_repeated_run_does_not_open_its_request_again(self) -> None:
        entry = production_log.claim(log("1")[0], None)
        for _ in range(2):
            score_requests.write([replace(request(entry.number, 0), at=None)])
            built_days.write(scored("1"))
            assert score_requests.read_open("m") == {}
        assert len(score_requests.read("m")) == 1

    def test_requests_of_another_model_and_day_do_not_matter(self) -> None:
        production_log.claim(log("1")[0], None)
        score_requests.write([request(1, 0)])
        score_requests.write(
            [replace(request(1, 0), model="other"), replace(request(1, 0), model="other", day=date.max)]
        )
        assert list(score_requests.read_open("m")) == [DAY]
        assert [each.day for each in score_requests.read("other", DAY)] == [DAY]

    def test_scorers_of_every_day_are_read_once(self) -> None:
        first = production_log.claim(log("1")[0], None)
        production_log.claim(log("1", "2")[1], first)
        built_days.write(scored("1"))
        scorers = read_scorers("m")
        other = date(1998, 7, 1)
        assert isinstance(scorers, Scorers)
        assert [scorers.tables(DAY), scorers.tables(other)] == [("features.table_1",), ("features.table_2",)]

    def test_a_version_that_cannot_score_has_no_tables(self) -> None:
        production_log.claim(log("1")[0], None)
        built_days.write(scored("9"))
        assert read_scorers("m").tables(DAY) is None


class TestTheLog:
    @pytest.fixture(autouse=True)
    def _lake(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LAKE_URI", f"file://{tmp_path}")

    def test_model_and_tables_are_one_record_in_the_order_of_the_columns(self) -> None:
        features = {"z_first": ("b", "a"), "a_second": ("c",)}
        population = {"query": "populations/everybody", "settings": {"days": 90}}
        production_log.claim(replace(log("1")[0], features=features, population=population), None)
        entry = production_log.current_entry("m")
        assert entry is not None
        assert list(entry.features or {}) == ["z_first", "a_second"]
        assert (entry.features, entry.population) == (features, population)
        assert entry.tables == ("features.z_first", "features.a_second")

    def test_an_entry_of_an_earlier_release_has_no_tables(self, tmp_path: Path) -> None:
        production_log.claim(log("1")[0], None)
        (path,) = tmp_path.rglob("00000001.json")
        fields = json.loads(path.read_text())
        del fields["features"], fields["population"]
        path.unlink()
        path.write_text(json.dumps(fields))
        (entry,) = production_log.read_history("m")
        assert (entry.features, entry.population, entry.tables) == (None, None, None)

    def test_examples_are_a_table_in_silver(self) -> None:
        assert replace(log("1")[0], features={"silver.files": ("x",)}).tables == ("silver.files",)
