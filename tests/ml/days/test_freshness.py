"""The rule of staleness over a graph: two sources, a snapshot, two feature tables, two models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from ml.days.freshness import Behind, Freshness
from ml.days.state import State
from ml.graph import Graph, Input, Node, monitor_id, score_id
from ml.ops.built_days import BuiltDay
from ml.ops.ingested_days import IngestedDay

D = [date(2024, 2, 27) + timedelta(days=n) for n in range(6)]
LATER = datetime(2024, 6, 1, tzinfo=UTC)
SALES, VISITS, PRICES = "silver.sales", "silver.visits", "silver.prices"
SHOPPERS, VISITORS = "features.shoppers", "features.visitors"


def facts(table: str, **changes: Any) -> Input:
    return Input(**{"table": table, "node": table, "kind": "facts", "back": None} | changes)


def same_day(table: str) -> Input:
    return Input(table=table, node=table, kind="day")


def node(node_id: str, kind: Any, *inputs: Input, **changes: Any) -> Node:
    name = node_id.rpartition(".")[2] if kind in ("source", "features") else node_id.partition(".")[0]
    return Node(**{"id": node_id, "kind": kind, "name": name, "tables": (node_id,), "inputs": inputs} | changes)


def graph(visits: Input | None = None, prices: Input | None = None, **changes: Any) -> Graph:
    """Sales and prices → shoppers → churn. Sales, visits → visitors → lapse, which uses shoppers too."""
    price_list = prices or Input(table=PRICES, node=PRICES, kind="snapshot", waits=False)
    nodes = [
        *(node(source, "source") for source in (SALES, VISITS, PRICES)),
        node(SHOPPERS, "features", facts(SALES), price_list, **{"restate_days": 31} | changes),
        node(VISITORS, "features", facts(SALES, back=1), visits or facts(VISITS, back=2), restate_days=31),
    ]
    for model, tables in (("churn", [SHOPPERS]), ("lapse", [VISITORS, SHOPPERS])):
        score = node(score_id(model), "score", *map(same_day, tables), restate_days=31)
        nodes += [score, node(monitor_id(model), "monitor", same_day(score.id), restate_days=31)]
    return Graph({each.id: each for each in nodes})


class World:
    """Days as the tables hold them, built by hand."""

    def __init__(self, of: Graph | None = None) -> None:
        self.graph = of or graph()
        self.ingested: dict[str, dict[date, IngestedDay]] = {}
        self.built: dict[str, dict[date, BuiltDay]] = {}
        self.held: dict[str, dict[date, Mapping[str, Any]]] = {}
        self.requested: dict[str, list[date]] = {}
        self.recipes: dict[str, str] = {}
        self.now = LATER

    def ingest(self, source: str, *days: date, content: str = "x", follow: bool = True, validated: bool = True) -> None:
        of = self.graph.nodes[source]
        for day in days:
            contents = {table: f"{content} {table} {day}" for table in of.tables}
            mark = IngestedDay(contents=contents, fingerprint=f"f-{content}", follow=follow, run_key="k")
            self.ingested.setdefault(of.name, {})[day] = mark
            if validated:
                self.write(source, day, inputs=mark.content)

    def build(self, node_id: str, *days: date, content: str | None = None, model_version: str | None = "1") -> None:
        """Build days as they are to be built now; equal inputs give equal rows unless `content` says otherwise."""
        for day in days:
            inputs = self.state.inputs(node_id, day)
            version = model_version if self.graph.nodes[node_id].kind in ("score", "monitor") else None
            self.write(
                node_id,
                day,
                inputs=inputs.digest,
                own=inputs.own,
                content=inputs.digest if content is None else content,
                model_version=version,
                recipe=self.recipes.get(node_id, "old"),
            )

    def build_all(self, *days: date) -> None:
        for node_id, of in self.graph.nodes.items():
            if of.kind != "source":
                self.build(node_id, *days)

    def write(self, node_id: str, day: date, **values: Any) -> None:
        entry = BuiltDay(**{"node": node_id, "day": day, "run_key": "k", "version": 0, "rows": 1} | values)
        self.built.setdefault(node_id, {})[day] = entry

    @property
    def state(self) -> State:
        return State(
            graph=self.graph, ingested=self.ingested, built=self.built, held=self.held, requested=self.requested
        )

    @property
    def freshness(self) -> Freshness:
        return Freshness(self.state, self.now, self.recipes)

    def behind(self) -> dict[str, list[date]]:
        days: dict[str, list[date]] = {}
        for each in self.freshness.all_behind():
            days.setdefault(each.node, []).append(each.day)
        return days

    def causes(self, node_id: str) -> dict[date, str]:
        return {each.day: each.cause for each in self.freshness.all_behind() if each.node == node_id}

    def of(self, node_id: str, day: date) -> Behind:
        behind = self.freshness.behind(node_id, day)
        assert behind is not None
        return behind


@pytest.fixture
def world() -> World:
    """Three days of everything, built through."""
    world = World()
    for source in (SALES, VISITS):
        world.ingest(source, *D[:3])
    world.ingest(PRICES, D[0], D[2])
    world.build_all(*D[:3])
    assert world.behind() == {}
    return world


class TestWhatACorrectionReaches:
    def test_all_days_from_it_on_in_a_table_of_all_history_and_only_its_window_elsewhere(self, world: World) -> None:
        world.ingest(SALES, D[1], content="corrected")
        assert world.causes(SHOPPERS) == {D[1]: "data", D[2]: "upstream"}
        assert world.causes(VISITORS) == {D[1]: "data"}

    def test_the_other_source_reaches_only_what_is_built_on_it(self, world: World) -> None:
        world.ingest(VISITS, D[0], content="corrected")
        assert world.behind() == {VISITORS: [D[0], D[1]]}
        assert [world.of(VISITORS, day).trigger_now for day in D[:2]] == [False, True]

    def test_a_snapshot_reaches_the_days_in_which_it_is_in_force(self, world: World) -> None:
        world.ingest(PRICES, D[0], content="corrected")
        assert world.causes(SHOPPERS) == {D[0]: "upstream", D[1]: "upstream"}
        world.ingest(PRICES, D[0])
        world.ingest(PRICES, D[2], content="corrected")
        assert world.behind() == {SHOPPERS: [D[2]]}

    def test_the_same_content_again_reaches_nothing(self, world: World) -> None:
        world.ingest(SALES, *D[:3])
        world.ingest(PRICES, D[0], D[2])
        assert world.behind() == {}

    def test_rows_that_are_equal_after_all_stop_the_spread(self, world: World) -> None:
        same = {day: world.built[SHOPPERS][day].content for day in D[:3]}
        world.ingest(SALES, D[1], content="a product's name is spelt right")
        for day in D[1:3]:
            world.build(SHOPPERS, day, content=same[day])
        assert world.behind() == {VISITORS: [D[1]]}

    def test_other_features_make_the_scores_of_every_model_on_them_stale(self, world: World) -> None:
        world.ingest(SALES, D[1], content="corrected")
        world.build(SHOPPERS, D[1], D[2])
        world.build(VISITORS, D[1])
        assert world.behind() == {score_id("churn"): D[1:3], score_id("lapse"): D[1:3]}
        assert world.of(score_id("churn"), D[1]).cause == "upstream"

    def test_a_score_waits_while_any_of_its_features_is_behind_and_drift_while_its_score_is(self, world: World) -> None:
        world.ingest(VISITS, D[2], content="corrected")
        assert world.behind() == {VISITORS: [D[2]]}
        world.build(VISITORS, D[2])
        assert world.behind() == {score_id("lapse"): [D[2]]}
        world.build(score_id("lapse"), D[2])
        assert world.behind() == {monitor_id("lapse"): [D[2]]}


class TestMissingInputs:
    def test_a_day_waits_for_an_input_that_it_needs_and_nothing_else_waits_with_it(self, world: World) -> None:
        world.ingest(SALES, D[3])
        assert world.behind() == {SHOPPERS: [D[3]]}
        assert world.freshness.waiting_for(world.graph.nodes[VISITORS], D[3]) == [VISITS]
        world.ingest(VISITS, D[3])
        assert world.behind() == {SHOPPERS: [D[3]], VISITORS: [D[3]]}

    def test_a_carried_input_is_not_waited_for_and_makes_the_day_again_when_it_comes(self) -> None:
        world = World(graph(visits=facts(VISITS, back=2, waits=False)))
        world.ingest(SALES, D[0])
        assert world.causes(VISITORS) == {D[0]: "missing"}
        world.build(VISITORS, D[0])
        assert VISITORS not in world.behind()
        world.ingest(VISITS, D[0])
        assert world.causes(VISITORS) == {D[0]: "data"}

    def test_after_wait_until_the_day_is_built_without_the_input(self) -> None:
        world = World(graph(visits=facts(VISITS, back=2, wait_until=3)))
        world.ingest(SALES, D[0])
        midnight = datetime.combine(D[0] + timedelta(days=4), datetime.min.time(), UTC)
        world.now = midnight - timedelta(seconds=1)
        assert VISITORS not in world.behind()
        world.now = midnight
        assert world.causes(VISITORS) == {D[0]: "missing"}

    def test_a_first_snapshot_is_waited_for_when_the_table_says_so(self) -> None:
        world = World(graph(prices=Input(table=PRICES, node=PRICES, kind="snapshot")))
        world.ingest(SALES, D[0])
        assert SHOPPERS not in world.behind()
        world.ingest(PRICES, D[3])
        assert world.causes(SHOPPERS) == {D[0]: "missing"}

    def test_nothing_is_built_with_a_snapshot_that_is_not_validated(self, world: World) -> None:
        world.ingest(PRICES, D[2], content="new", validated=False)
        world.ingest(SALES, D[1], D[2], content="corrected")
        assert world.behind() == {PRICES: [D[2]], SHOPPERS: [D[1]], VISITORS: D[1:3]}

    def test_a_snapshot_alone_makes_no_day(self) -> None:
        world = World()
        world.ingest(PRICES, D[0])
        assert world.behind() == {}

    def test_a_day_of_which_another_source_is_not_validated_is_not_built(self, world: World) -> None:
        world.ingest(SALES, D[3])
        world.ingest(VISITS, D[3], validated=False)
        assert world.behind() == {VISITS: [D[3]], SHOPPERS: [D[3]]}


class TestSources:
    def test_a_refused_day_is_held_until_its_files_change(self, world: World) -> None:
        world.ingest(SALES, D[1], content="bad", validated=False)
        world.held["sales"] = {D[1]: {"fingerprint": "f-bad", "reasons": ["too many returns"]}}
        assert D[1] not in world.behind().get(SALES, [])
        assert world.behind() == {SHOPPERS: [D[2]]}
        assert world.freshness.pending({})[SHOPPERS] == {}
        world.ingest(SALES, D[1], content="good")
        assert world.causes(SHOPPERS) == {D[1]: "data", D[2]: "upstream"}

    def test_days_of_a_history_are_not_wanted_for_themselves(self) -> None:
        world = World()
        world.ingest(SALES, *D[:3], follow=False)
        world.ingest(SALES, D[3])
        assert world.behind() == {SHOPPERS: [D[3]]}


class TestModels:
    def test_without_a_champion_a_day_needs_no_drift(self, world: World) -> None:
        world.ingest(SALES, D[3])
        world.build(SHOPPERS, D[3])
        world.build(score_id("churn"), D[3], model_version=None)
        assert world.behind() == {}

    def test_a_requested_scoring_is_behind_until_it_is_done(self, world: World) -> None:
        world.requested["churn"] = [D[1]]
        assert world.behind() == {score_id("churn"): [D[1]]}

    def test_a_request_is_pending_however_old_its_day_is(self) -> None:
        world = World()
        score = world.graph.nodes[score_id("churn")]
        world.graph = Graph({**world.graph.nodes, score.id: replace(score, restate_days=1)})
        world.ingest(SALES, *D[:4])
        world.ingest(PRICES, D[0])
        world.build_all(*D[:4])
        world.requested["churn"] = [D[0], D[1]]
        assert list(world.freshness.pending({})[score.id]) == D[:2]
        assert world.freshness.left_to_people() == []

    def test_drift_follows_a_scoring_by_another_version(self, world: World) -> None:
        world.build(score_id("churn"), D[1], model_version="2")
        assert world.behind() == {monitor_id("churn"): [D[1]]}

    def test_a_model_on_a_source_itself_follows_each_ingested_day(self) -> None:
        of = graph().nodes
        score = node(score_id("credit"), "score", same_day(SALES), restate_days=31)
        world = World(Graph({SALES: of[SALES], score.id: score}))
        world.ingest(SALES, D[0], validated=False)
        assert world.behind() == {SALES: [D[0]]}
        world.ingest(SALES, D[0])
        assert world.behind() == {score.id: [D[0]]}
        world.build(score.id, D[0])
        assert world.behind() == {}


class TestCode:
    def test_a_changed_recipe_is_named_and_left_to_people(self, world: World) -> None:
        world.recipes = {SHOPPERS: "new"}
        assert world.causes(SHOPPERS) == dict.fromkeys(D[:3], "code")
        assert world.freshness.pending({})[SHOPPERS] == {}
        assert {each.day for each in world.freshness.left_to_people()} == set(D[:3])

    def test_it_rebuilds_by_itself_where_the_table_says_so(self, world: World) -> None:
        nodes = dict(world.graph.nodes)
        nodes[SHOPPERS] = replace(nodes[SHOPPERS], rebuild_code=True)
        world.graph, world.recipes = Graph(nodes), {SHOPPERS: "new"}
        assert sorted(world.freshness.pending({})[SHOPPERS]) == D[:3]

    def test_changed_data_is_left_to_people_where_the_table_says_so_and_new_days_are_not(self, world: World) -> None:
        nodes = dict(world.graph.nodes)
        nodes[SHOPPERS] = replace(nodes[SHOPPERS], rebuild_data=False)
        world.graph = Graph(nodes)
        world.ingest(SALES, D[2], content="corrected")
        world.ingest(SALES, D[3])
        assert list(world.freshness.pending({})[SHOPPERS]) == [D[3]]
        assert [each.day for each in world.freshness.left_to_people()] == [D[2]]


class TestPending:
    def test_a_stale_day_waits_for_days_that_are_being_ingested_before_it(self, world: World) -> None:
        world.ingest(SALES, D[0], content="corrected")
        assert sorted(world.freshness.pending({})[SHOPPERS]) == D[:3]
        assert sorted(world.freshness.pending({SALES: [D[1]]})[SHOPPERS]) == [D[0]]
        assert sorted(world.freshness.pending({VISITS: [D[1]]})[SHOPPERS]) == D[:3]

    def test_only_the_newest_days_are_requested_and_the_others_left_to_people(self) -> None:
        world = World(graph(restate_days=2))
        world.ingest(SALES, *D[:4])
        assert list(world.freshness.pending({})[SHOPPERS]) == D[2:4]
        assert [each.day for each in world.freshness.left_to_people() if each.node == SHOPPERS] == D[:2]
