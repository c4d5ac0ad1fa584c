"""The inputs of one day of a node, as a stage records them in the journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from ml.config import Project
from ml.days.state import day_inputs, read_inputs
from ml.graph.digests import input_digest


@dataclass(frozen=True)
class Inputs:
    """`digest`, `own`, `missing` as in `ml.graph.InputDigest`; `versions` of the ops tables that they were read from."""

    digest: str
    own: str
    versions: Mapping[str, int]
    missing: tuple[str, ...] = ()


def current_inputs(project: Project, node_id: str, day: date, *, pinned: Sequence[str] | None = None) -> Inputs:
    """What this day of the node is to be built from now. For several days use `ml.days.state.read_inputs`.

    `pinned`: the tables that the version that scores the day reads, if they are recorded.
    """
    state = read_inputs(project, node_id, pinned)
    inputs = (
        state.inputs(node_id, day)
        if pinned is None
        else input_digest(day_inputs(state.graph, pinned), day, state.contents)
    )
    return Inputs(inputs.digest, inputs.own, state.versions, inputs.missing)
