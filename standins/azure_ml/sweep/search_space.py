"""The search space of an Azure ML sweep: parsed, checked, and sampled with Optuna's samplers.

Distributions follow Azure ML's documentation, e.g. loguniform(a, b) is exp(uniform(a, b)). The normal distributions are
sampled through their inverse from a uniform number, so that every sampler works on bounded parameters. A sweep's samples
depend on its seed (its name if it has none), the trial's number and the earlier trials, never on interruptions.
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
_BAYESIAN = ("choice", "uniform", "quniform")  # supported by the service's Bayesian sampling
_STARTUP = 10  # random trials before Bayesian sampling starts to learn: Optuna's default


@dataclass(frozen=True)
class Parameter:
    """One parameter: the name (`kind`) and the arguments of its distribution, as requested."""

    name: str
    kind: str
    arguments: tuple[Any, ...]

    def bounds(self) -> Any:
        """The Optuna distribution to sample from; `value` converts a sample into the parameter's value."""
        from optuna import distributions as d

        a = self.arguments
        match self.kind:
            case "choice":
                return d.CategoricalDistribution(list(range(len(a[0]))))  # by index: the values may have any JSON type
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
class SampledTrial:
    """An earlier trial for the sampler: its samples by parameter, and its objective; None while it has none."""

    drawn: Mapping[str, Any]
    objective: float | None


def read_space(space: Mapping[str, Any]) -> tuple[Parameter, ...]:
    """Parse a search space in the management API's format. Raises ApiError."""
    if not space:
        raise user_error("The field 'searchSpace' is required for a sweep job and names at least one parameter.")
    return tuple(_parameter(name, distribution) for name, distribution in sorted(space.items()))


def _parameter(name: str, distribution: Any) -> Parameter:
    if not (isinstance(distribution, list) and len(distribution) == 2 and isinstance(distribution[1], list)):
        raise user_error(f"searchSpace.{name}: [distribution, [arguments]] is needed; found {distribution!r}")
    kind, arguments = distribution
    if kind not in _ARGUMENTS:
        raise user_error(f"searchSpace.{name}: unknown distribution {kind!r}; supported are {', '.join(_ARGUMENTS)}")
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
    """Reject a sampling that does not support the search space, as the service does. Raises ApiError."""
    kind = sampling.get("samplingAlgorithmType") or "Random"
    if kind not in ("Random", "Bayesian", "Grid"):
        raise user_error(f"samplingAlgorithm: {kind!r} is not one of Random, Bayesian, Grid")
    if str(sampling.get("rule") or "random").lower() != "random" or sampling.get("logbase"):
        raise NotImplementedHere("Random sampling by a Sobol sequence, or with a logarithm base")
    if kind == "Bayesian" and ends_early:
        raise user_error("Bayesian sampling does not support early termination policies: leave earlyTermination out.")
    allowed = {"Bayesian": _BAYESIAN, "Grid": ("choice",)}.get(kind)
    if allowed and (unsupported := [f"{p.name} ({p.kind})" for p in space if p.kind not in allowed]):
        raise user_error(f"{kind} sampling supports {', '.join(allowed)}; not supported: {', '.join(unsupported)}")


def draw(
    space: Sequence[Parameter], sampling: Json, goal: Goal, seed: str, earlier: Sequence[SampledTrial]
) -> dict[str, Any] | None:
    """The samples of the trial after `earlier`, for `parameter_values`; None when a grid is exhausted."""
    number = len(earlier)
    kind = sampling.get("samplingAlgorithmType") or "Random"
    if kind == "Grid":
        points = itertools.product(*(range(len(p.arguments[0])) for p in space))
        point = next(itertools.islice(points, number, None), None)
        return None if point is None else dict(zip([p.name for p in space], point, strict=True))
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    random_seed = int.from_bytes(digest[:4], "big")
    sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=random_seed)
    if kind == "Bayesian":
        sampler = optuna.samplers.TPESampler(seed=random_seed, n_startup_trials=_STARTUP, constant_liar=True)
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


def parameter_values(space: Sequence[Parameter], drawn: Mapping[str, Any]) -> dict[str, Value]:
    return {p.name: p.value(drawn[p.name]) for p in space}


def best(objectives: Sequence[float], goal: Goal) -> float:
    return max(objectives) if goal == "maximize" else min(objectives)
