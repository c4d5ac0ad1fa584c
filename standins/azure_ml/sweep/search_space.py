"""The search space of an Azure ML sweep: read, checked, and drawn from with Optuna's samplers.

Distributions mean what Azure ML documents, e.g. loguniform(a, b) is exp(uniform(a, b)), and the normal ones are drawn by
their inverse from a uniform number, so that every sampler can work on bounded parameters. What a sweep draws depends on
its seed (its name when it has none), the trial's number and the trials before, never on when it was interrupted.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

from standins.azure_ml.api import Json, user_error
from standins.core.errors import NotImplementedHere

Value = Any  # a number, a text or a truth value
Goal = Literal["minimize", "maximize"]

_ARGUMENTS = {
    "choice": 1, "randint": 1, "uniform": 2, "quniform": 3, "loguniform": 2, "qloguniform": 3,
    "normal": 2, "qnormal": 3, "lognormal": 2, "qlognormal": 3,
}  # fmt: skip
_BAYESIAN = ("choice", "uniform", "quniform")  # what the service's Bayesian sampling takes
_STARTUP = 10  # trials that Bayesian sampling draws at random before it learns: Optuna's default


@dataclass(frozen=True)
class Parameter:
    """One parameter: its distribution's name and arguments, as asked."""

    name: str
    kind: str
    arguments: tuple[Any, ...]

    def bounds(self) -> Any:
        """The Optuna distribution that is drawn from; `value` makes the parameter's value of what was drawn."""
        from optuna import distributions as d

        a = self.arguments
        match self.kind:
            case "choice":
                return d.CategoricalDistribution(list(range(len(a[0]))))  # by place: values may be of any JSON type
            case "randint":
                return d.IntDistribution(0, int(a[0]) - 1)
            case "uniform" | "quniform":
                return d.FloatDistribution(a[0], a[1])
            case "loguniform" | "qloguniform":
                return d.FloatDistribution(math.exp(a[0]), math.exp(a[1]), log=True)
        return d.FloatDistribution(1e-9, 1 - 1e-9)

    def value(self, drawn: Any) -> Value:
        a = self.arguments
        if self.kind == "choice":
            return a[0][drawn]
        if "normal" in self.kind:
            drawn = NormalDist(a[0], a[1]).inv_cdf(drawn)
            drawn = math.exp(drawn) if "log" in self.kind else drawn
        if self.kind.startswith("q"):
            drawn = round(drawn / a[2]) * a[2]
            return int(drawn) if float(drawn).is_integer() else drawn
        return drawn


@dataclass(frozen=True)
class Drawn:
    """A trial as a sampler knows it: what was drawn for it, and its objective if it has one by now."""

    drawn: Mapping[str, Any]
    objective: float | None


def read_space(space: Mapping[str, Any]) -> tuple[Parameter, ...]:
    """The parameters of a search space as the management API carries it. Raises ApiError."""
    if not space:
        raise user_error("The field 'searchSpace' is required for a sweep job and names at least one parameter.")
    return tuple(_parameter(name, given) for name, given in sorted(space.items()))


def _parameter(name: str, given: Any) -> Parameter:
    if not (isinstance(given, list) and len(given) == 2 and isinstance(given[1], list)):
        raise user_error(f"searchSpace.{name}: [distribution, [arguments]] is needed; found {given!r}")
    kind, arguments = given
    if kind not in _ARGUMENTS:
        raise user_error(f"searchSpace.{name}: {kind!r} is no distribution; there are {', '.join(_ARGUMENTS)}")
    if len(arguments) != _ARGUMENTS[kind]:
        raise user_error(f"searchSpace.{name}: {kind} takes {_ARGUMENTS[kind]} arguments; found {len(arguments)}")
    if kind == "choice":
        if not isinstance(arguments[0], list) or not arguments[0]:
            raise user_error(f"searchSpace.{name}: a choice needs a list of at least one value; found {arguments[0]!r}")
        if any(isinstance(value, dict | list) for value in arguments[0]):
            raise NotImplementedHere(f"searchSpace.{name}: a choice between search spaces")
        return Parameter(name, kind, (tuple(arguments[0]),))
    if not all(isinstance(a, int | float) and not isinstance(a, bool) and math.isfinite(a) for a in arguments):
        raise user_error(f"searchSpace.{name}: {kind} takes finite numbers; found {arguments!r}")
    if "uniform" in kind and not arguments[0] < arguments[1]:
        raise user_error(f"searchSpace.{name}: {arguments[0]} is not below {arguments[1]}")
    if kind.startswith("q") and arguments[2] <= 0:
        raise user_error(f"searchSpace.{name}: the step must be above 0; found {arguments[2]}")
    if "normal" in kind and arguments[1] <= 0:
        raise user_error(f"searchSpace.{name}: the standard deviation must be above 0; found {arguments[1]}")
    if kind == "randint" and (arguments[0] < 1 or int(arguments[0]) != arguments[0]):
        raise user_error(f"searchSpace.{name}: randint takes a whole number of at least 1; found {arguments[0]}")
    return Parameter(name, kind, tuple(arguments))


def check_sampling(sampling: Json, space: Sequence[Parameter], ends_early: bool = False) -> None:
    """Refuse a sampling that does not go with a space, as the service does. Raises ApiError."""
    kind = sampling.get("samplingAlgorithmType") or "Random"
    if kind not in ("Random", "Bayesian", "Grid"):
        raise user_error(f"samplingAlgorithm: {kind!r} is none of Random, Bayesian, Grid")
    if str(sampling.get("rule") or "random").lower() != "random" or sampling.get("logbase"):
        raise NotImplementedHere("Random sampling by a Sobol sequence, or with a base of logarithms")
    if kind == "Bayesian" and ends_early:
        raise user_error("Bayesian sampling does not support early termination policies: leave earlyTermination out.")
    allowed = {"Bayesian": _BAYESIAN, "Grid": ("choice",)}.get(kind)
    if allowed and (strays := [f"{p.name} ({p.kind})" for p in space if p.kind not in allowed]):
        raise user_error(f"{kind} sampling takes {', '.join(allowed)}; not so: {', '.join(strays)}")


def draw(
    space: Sequence[Parameter], sampling: Json, goal: Goal, seed: str, earlier: Sequence[Drawn]
) -> dict[str, Any] | None:
    """What is drawn for the trial after `earlier`; None when a grid has no more. `values` makes parameters of it."""
    number = len(earlier)
    kind = sampling.get("samplingAlgorithmType") or "Random"
    if kind == "Grid":
        places = itertools.product(*(range(len(p.arguments[0])) for p in space))
        found = next(itertools.islice(places, number, None), None)
        return None if found is None else dict(zip([p.name for p in space], found, strict=True))
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    chance = int.from_bytes(digest[:4], "big")
    sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=chance)
    if kind == "Bayesian":
        sampler = optuna.samplers.TPESampler(seed=chance, n_startup_trials=_STARTUP, constant_liar=True)
    study = optuna.create_study(sampler=sampler, direction=goal)
    bounds = {p.name: p.bounds() for p in space}
    for trial in earlier:
        state = optuna.trial.TrialState.RUNNING if trial.objective is None else optuna.trial.TrialState.COMPLETE
        study.add_trial(
            optuna.trial.create_trial(
                state=state, value=trial.objective, params=dict(trial.drawn), distributions=bounds
            )
        )
    return dict(study.ask(bounds).params)


def values(space: Sequence[Parameter], drawn: Mapping[str, Any]) -> dict[str, Value]:
    return {p.name: p.value(drawn[p.name]) for p in space}


def best(objectives: Sequence[float], goal: Goal) -> float:
    return max(objectives) if goal == "maximize" else min(objectives)
