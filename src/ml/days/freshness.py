"""The rule of staleness, one for the whole graph: what each day was built from, compared with what the tables hold now.

A day of a node is *stale* when the input digest that it was built from is not today's. A late or corrected day of facts
makes exactly the days stale whose window reaches it; a changed snapshot those in which it is in force; a node that is
built again with equal content makes nothing stale. All of it is computed from tables, so nothing is lost with an event
or a process.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from functools import cached_property
from typing import Literal
from zoneinfo import ZoneInfo

from ml.console import days_in_words
from ml.days.state import State
from ml.graph import Graph, Node
from ml.ops.ingested_days import IngestedDay

Cause = Literal["missing", "data", "upstream", "code", "damaged"]


@dataclass(frozen=True, kw_only=True)
class Behind:
    """A day that a node still has to build, or to build again.

    missing: it was never built. data: the day's own data changed. upstream: other days, or another node, changed. code:
    its query or settings changed. damaged: its partition is not what was written.
    """

    node: str
    day: date
    cause: Cause
    inputs: str  # digest of what it is to be built from; of a source: fingerprint of the files to ingest
    why: str
    trigger_now: bool  # only the sweep requests it; False: an event should trigger it, unless that got lost
    days: tuple[date, ...] = ()  # that caused it, as far as they are known
    nodes: tuple[str, ...] = ()  # that caused it


@dataclass(frozen=True)
class Freshness:
    """The staleness of all days of a state. `recipes`: the present recipe of feature tables, where code counts."""

    state: State
    now: datetime
    recipes: Mapping[str, str] = field(default_factory=dict)

    @property
    def graph(self) -> Graph:
        return self.state.graph

    @cached_property
    def _behind(self) -> dict[tuple[str, date], Behind | None]:
        return {}

    def behind(self, node_id: str, day: date) -> Behind | None:
        """Why this day of the node has to be built, or None: when it is current, not wanted, or waits for its inputs."""
        key = (node_id, day)
        if key not in self._behind:
            node = self.graph.nodes[node_id]
            rule = {
                "source": self._source_behind,
                "features": self._features_behind,
                "score": self._score_behind,
                "monitor": self._monitor_behind,
            }[node.kind]
            self._behind[key] = rule(node, day)
        return self._behind[key]

    @cached_property
    def _days(self) -> dict[str, list[date]]:
        return {}

    def days_of(self, node_id: str) -> list[date]:
        """The days that the node has built, or that were ingested to have it, oldest first."""
        if node_id not in self._days:
            self._days[node_id] = self._read_days(self.graph.nodes[node_id])
        return self._days[node_id]

    def _read_days(self, node: Node) -> list[date]:
        node_id = node.id
        if node.kind == "source":
            return sorted(day for day, mark in self.state.ingested.get(node.name, {}).items() if mark.follow)
        days = set(self.state.built.get(node_id, {}))
        if node.kind == "features" or any(self._is_source(each.node) for each in node.inputs):
            for each in node.inputs:
                if each.kind != "snapshot":
                    days.update(self.days_of(each.node))
        else:
            shared = [set(self.state.built.get(each.node, {})) for each in node.inputs]
            days |= set.intersection(*shared)
        return sorted(days)

    def newest_days(self, node_id: str) -> list[date]:
        """The newest days of the node, and those that somebody has requested: they are rebuilt by themselves.

        Older ones are left to people.
        """
        days, node = self.days_of(node_id), self.graph.nodes[node_id]
        newest = days[-self._restate_days(node_id) :]
        requested = set(self.state.requested.get(node.name, ())) if node.kind == "score" else set()
        return [day for day in days if day in requested and day < newest[0]] + newest

    def _restate_days(self, node_id: str) -> int:
        node = self.graph.nodes[node_id]
        if node.kind != "source":
            return node.restate_days
        return max((self._restate_days(consumer.id) for consumer in self.graph.consumers[node_id]), default=31)

    def waiting_for(self, node: Node, day: date) -> list[str]:
        """The tables that a day of the node still waits for."""
        missing = set(self.state.inputs(node.id, day).missing)
        waiting = []
        for each in node.inputs:
            table_missing = each.table in missing or (each.kind == "facts" and self._is_source_behind(each.node, day))
            if table_missing and each.waits and not self._is_expired(node, each.wait_until, day):
                waiting.append(each.table)
        return waiting

    def _is_expired(self, node: Node, wait_until: int | None, day: date) -> bool:
        if wait_until is None:
            return False
        ends = datetime.combine(day + timedelta(days=1), time(), ZoneInfo(node.timezone))
        return self.now >= ends + timedelta(days=wait_until)

    def _is_source(self, node_id: str) -> bool:
        return self.graph.nodes[node_id].kind == "source"

    def _is_source_behind(self, node_id: str, day: date) -> bool:
        """Is the day's silver not validated yet, or not any more? Then nothing is built from it."""
        node = self.graph.nodes[node_id]
        mark = self.state.ingested.get(node.name, {}).get(day)
        return mark is not None and mark.follow and not self._is_validated(node, day, mark)

    def _is_validated(self, node: Node, day: date, mark: IngestedDay) -> bool:
        passed = self.state.built.get(node.id, {}).get(day)
        return passed is not None and passed.inputs == mark.content

    def _source_behind(self, node: Node, day: date) -> Behind | None:
        mark = self.state.ingested.get(node.name, {}).get(day)
        if mark is None or not mark.follow or self._is_validated(node, day, mark):
            return None
        held = self.state.held.get(node.name, {}).get(day)
        if held is not None and held["fingerprint"] == mark.fingerprint:
            return None  # validation refused its silver: it is held until its files change
        return Behind(
            node=node.id,
            day=day,
            cause="missing",
            inputs=mark.fingerprint,
            why="ingested, and its silver not validated",
            trigger_now=False,
        )

    def _is_wanted(self, node: Node, day: date) -> bool:
        """Was the day ingested in one of the node's facts to have it?"""
        marks = [self.state.ingested.get(self.graph.nodes[each.node].name, {}).get(day) for each in node.facts]
        return any(mark is not None and mark.follow for mark in marks)

    def _features_behind(self, node: Node, day: date) -> Behind | None:
        built = self.state.built.get(node.id, {}).get(day)
        if built is None and not self._is_wanted(node, day):
            return None
        if (built is None and self.waiting_for(node, day)) or self._has_unvalidated_inputs(node, day):
            return None
        now = self.state.inputs(node.id, day)

        def behind(cause: Cause, why: str, *, trigger_now: bool = False) -> Behind:
            nodes = tuple(dict.fromkeys(each.node for each in node.inputs))
            return Behind(
                node=node.id, day=day, cause=cause, inputs=now.digest, why=why, trigger_now=trigger_now, nodes=nodes
            )

        if built is None:
            return behind("missing", "ingested, and without features")
        if built.inputs != now.digest:
            if built.own != now.own:
                return behind("data", "its own data has changed since its features were built")
            return behind("upstream", "a day before it has changed since its features were built", trigger_now=True)
        recipe = self.recipes.get(node.id)
        if recipe is not None and built.recipe not in ("", recipe):  # "": built by an earlier release, not recorded
            return behind("code", "its query or settings have changed since its features were built", trigger_now=True)
        return None

    def _has_unvalidated_inputs(self, node: Node, day: date) -> bool:
        """Is the silver of the day, or of the snapshot in force, not validated?"""
        for each in node.inputs:
            brought = day
            if each.kind == "snapshot":
                in_force = self.state.contents[each.table].in_force(day, each.max_age)
                if in_force is None:
                    continue
                brought = in_force
            if self._is_source_behind(each.node, brought):
                return True
        return False

    def _score_behind(self, node: Node, day: date) -> Behind | None:
        inputs = self.state.inputs(node.id, day)
        scored = self.state.built.get(node.id, {}).get(day)
        if inputs.missing or self._is_blocked(node, day):
            return None
        if scored is None:
            return self._follows(node, day, "missing", inputs.digest, "has features, and no scores")
        if scored.inputs != inputs.digest:
            return self._follows(node, day, "upstream", inputs.digest, "its scores are from features it no longer has")
        if day in self.state.requested.get(node.name, ()):
            why = "requested to be scored again by the champion, and not scored since"
            return self._follows(node, day, "missing", inputs.digest, why)
        return None

    def _monitor_behind(self, node: Node, day: date) -> Behind | None:
        (score,) = node.inputs
        scored = self.state.built.get(score.node, {}).get(day)
        if scored is None or scored.model_version is None or self._is_blocked(node, day):
            return None
        inputs = self.state.inputs(node.id, day)
        measured = self.state.built.get(node.id, {}).get(day)
        if measured is None or measured.inputs != inputs.digest or measured.model_version != scored.model_version:
            return self._follows(node, day, "missing", inputs.digest, "scored, and its drift not measured")
        return None

    def _follows(self, node: Node, day: date, cause: Cause, inputs: str, why: str) -> Behind:
        nodes = tuple(each.node for each in node.inputs)
        return Behind(node=node.id, day=day, cause=cause, inputs=inputs, why=why, trigger_now=False, nodes=nodes)

    def _is_blocked(self, node: Node, day: date) -> bool:
        """Is a node that this one is built from behind itself? This one follows by itself then."""
        for each in self.state.inputs_of(node.id, day):
            if each.node not in self.graph.nodes:
                continue  # a table that no node writes any more
            if self.behind(each.node, day) is not None:
                return True
            if self._is_source(each.node) and self._is_source_behind(each.node, day):
                return True
        return False

    def all_behind(self) -> list[Behind]:
        """Everything that is behind, by node in the order of the graph, then by day."""
        found = [self.behind(node, day) for node in self.graph.nodes for day in self.days_of(node)]
        return [behind for behind in found if behind is not None]

    def pending(self, unsettled: Mapping[str, Collection[date]]) -> dict[str, dict[date, Behind]]:
        """Per node, what is behind among its newest days and rebuilds by itself.

        A day that is stale only because of other days waits until the days of its sources that are being ingested
        (`unsettled`, by source node) are ingested and validated: a week that is sent again rebuilds it once, not
        seven times.
        """
        pending: dict[str, dict[date, Behind]] = {}
        for node in self.graph.nodes.values():
            first_unsettled = self._first_unsettled(node, unsettled)
            days = {}
            for day in self.newest_days(node.id):
                behind = self.behind(node.id, day)
                if behind is None or not self._rebuilds(node, behind):
                    continue
                if not behind.trigger_now or day < first_unsettled:
                    days[day] = behind
            pending[node.id] = days
        return pending

    def _rebuilds(self, node: Node, behind: Behind) -> bool:
        if behind.cause == "missing":
            return True
        return node.rebuild_code if behind.cause == "code" else node.rebuild_data

    def _first_unsettled(self, node: Node, unsettled: Mapping[str, Collection[date]]) -> date:
        days = [day for each in node.inputs for day in unsettled.get(each.node, ())]
        for each in node.inputs:
            if self._is_source(each.node):
                days += [day for day in self.newest_days(each.node) if self._is_source_behind(each.node, day)]
        return min(days, default=date.max)

    def left_to_people(self) -> list[Behind]:
        """What is behind and rebuilt by nobody: days older than the newest `restate_days`, or changed under `plan`."""
        newest = {node: set(self.newest_days(node)) for node in self.graph.nodes}
        return [
            behind
            for behind in self.all_behind()
            if behind.day not in newest[behind.node] or not self._rebuilds(self.graph.nodes[behind.node], behind)
        ]


def in_words(behind: Collection[Behind]) -> dict[str, str]:
    """Per node, the days that are behind."""
    days: dict[str, list[date]] = {}
    for each in behind:
        days.setdefault(each.node, []).append(each.day)
    return {node: days_in_words(sorted(of_node)) for node, of_node in days.items()}
