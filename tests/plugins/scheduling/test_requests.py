"""When a Dag is asked again for a day: after a while, less and less often, and never while it may be at it."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import pytest

from mlops.scheduling.requests import Ask, Consumer, Memory, Wish, choose

NOW = datetime(1998, 7, 1, 12, tzinfo=UTC)
WAIT = timedelta(minutes=5)
D1, D2, D3 = date(1998, 6, 28), date(1998, 6, 29), date(1998, 6, 30)
IDLE, BUSY = Consumer(runs=8, busy=False), Consumer(runs=8, busy=True)


def asked(minutes: float, times: int = 1, of: str = "a") -> Ask:
    return Ask(of, NOW - timedelta(minutes=minutes), times)


@pytest.mark.parametrize(
    ("wish", "before", "consumer", "by_hand", "expected"),
    [
        pytest.param(Wish("a", True), None, IDLE, False, 1, id="new-is-asked-for"),
        pytest.param(Wish("a", True), None, BUSY, False, 1, id="new-is-asked-for-though-the-dag-is-busy"),
        pytest.param(Wish("a", False), None, IDLE, False, 0, id="what-an-event-brings-is-only-seen"),
        pytest.param(Wish("a", False), None, IDLE, True, 1, id="a-person-does-not-wait-for-the-event"),
        pytest.param(Wish("a", False), None, BUSY, True, 0, id="a-person-waits-for-runs-that-go-on"),
        pytest.param(Wish("a", False), asked(4, 0), IDLE, False, None, id="seen-four-minutes-ago"),
        pytest.param(Wish("a", False), asked(5, 0), IDLE, False, 1, id="seen-five-minutes-ago-was-lost"),
        pytest.param(Wish("a", False), asked(5, 0), BUSY, False, None, id="seen-and-the-dag-is-at-it"),
        pytest.param(Wish("a", True), asked(4), IDLE, False, None, id="asked-four-minutes-ago"),
        pytest.param(Wish("a", True), asked(5), IDLE, False, 2, id="asked-five-minutes-ago"),
        pytest.param(Wish("a", True), asked(5), BUSY, False, None, id="asked-and-the-dag-is-at-it"),
        pytest.param(Wish("a", True), asked(9, 2), IDLE, False, None, id="the-second-wait-is-longer"),
        pytest.param(Wish("a", True), asked(10, 2), IDLE, False, 3, id="and-has-an-end"),
        pytest.param(Wish("a", True), asked(1439, 60), IDLE, False, None, id="never-more-than-a-day"),
        pytest.param(Wish("a", True), asked(1440, 60), IDLE, False, 61, id="once-a-day-for-ever"),
        pytest.param(Wish("a", True), asked(1, 9), IDLE, True, 10, id="a-person-asks-when-she-likes"),
        pytest.param(Wish("a", True), asked(0.2), IDLE, True, None, id="but-not-for-what-is-on-its-way"),
        pytest.param(Wish("b", True), asked(1), IDLE, False, 1, id="another-content-is-another-wish"),
        pytest.param(Wish("b", False), asked(99, 3), IDLE, False, 0, id="another-content-that-an-event-brings"),
    ],
)
def test_one_day(wish: Wish, before: Ask | None, consumer: Consumer, by_hand: bool, expected: int | None) -> None:
    """`expected`: how often it was asked for afterwards; None: nothing is done and the memory stays."""
    memory = Memory({D1: before} if before else {}, runs=7)
    chosen, after = choose({D1: wish}, memory, consumer, NOW, WAIT, by_hand=by_hand)
    if expected is None:
        assert (chosen, after) == ([], memory)
    else:
        assert chosen == ([D1] if expected else [])
        assert after.days == {D1: Ask(wish.of, NOW, expected)}


def test_a_paused_dag_is_asked_for_one_day_at_a_time_and_gets_the_others_when_it_took_that() -> None:
    wishes = {day: Wish("a", True) for day in (D1, D2, D3)}
    chosen, memory = choose(wishes, Memory(), IDLE, NOW, WAIT, by_hand=False)
    assert chosen == [D1, D2, D3]
    for n in range(1, 50):  # nobody takes them: asked as often as at first
        later = NOW + n * WAIT
        chosen, memory = choose(wishes, memory, IDLE, later, WAIT, by_hand=False)
        assert chosen == [D1]
    taken = Consumer(runs=9, busy=False)
    del wishes[D1]
    chosen, memory = choose(wishes, memory, taken, later + timedelta(minutes=1), WAIT, by_hand=False)
    assert chosen == [D2, D3]


def test_what_is_not_wanted_any_more_is_forgotten() -> None:
    memory = Memory({D1: asked(1), D2: asked(1)}, runs=7)
    assert set(choose({D2: Wish("a", True)}, memory, IDLE, NOW, WAIT, by_hand=False)[1].days) == {D2}


def test_a_memory_survives_its_way_through_an_event() -> None:
    memory = Memory({D1: asked(1.5, 3), D2: asked(0, 0, "b")}, runs=4)
    assert Memory.from_json(json.loads(json.dumps(memory.to_json()))) == memory


@pytest.mark.parametrize("kept", [{}, {"1998-06-28": "0123456789abcdef"}], ids=["nothing", "an-older-form"])
def test_a_memory_that_is_not_there_is_empty(kept: dict[str, object]) -> None:
    assert Memory.from_json(kept) == Memory()
