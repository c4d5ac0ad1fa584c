"""Early termination of a sweep's trials by the three policies that Azure ML documents.

A trial's interval is the number of times it has logged the primary metric. A policy evaluates a trial at each multiple of
`evaluationInterval`, from `delayEvaluation` intervals on, and compares it with the trials that have reached that interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, median

from standins.azure_ml.api import Json, user_error
from standins.azure_ml.sweep.search_space import Goal, best
from standins.core.errors import NotImplementedHere

POLICIES = ("Bandit", "MedianStopping", "TruncationSelection")


def check_policy(policy: Json) -> None:
    """Raises ApiError for an invalid policy."""
    kind = policy.get("policyType")
    if kind not in POLICIES:
        raise user_error(f"earlyTermination: {kind!r} is not one of {', '.join(POLICIES)}")
    factor, amount = policy.get("slackFactor") or 0, policy.get("slackAmount") or 0
    if kind == "Bandit" and (factor < 0 or amount < 0 or bool(factor) == bool(amount)):
        raise user_error("earlyTermination: a bandit policy has either a slack factor or a slack amount, above 0")
    share = policy.get("truncationPercentage") or 0
    if kind == "TruncationSelection" and not 1 <= share <= 99:
        raise user_error(f"earlyTermination: truncationPercentage is 1 to 99; found {share}")
    if policy.get("excludeFinishedJobs"):
        raise NotImplementedHere("Truncation selection that excludes finished jobs")


def stop_reason(policy: Json, goal: Goal, own: Sequence[float], others: Sequence[Sequence[float]]) -> str:
    """Why a trial that has logged the values `own` must stop now, compared with the values of the others; "" if it may go on."""
    step = max(1, policy.get("evaluationInterval") or 1)
    interval = len(own) // step * step
    if not interval or interval < (policy.get("delayEvaluation") or 0):
        return ""
    reached = [other[:interval] for other in others if len(other) >= interval]
    if not reached:
        return ""
    sign = 1 if goal == "maximize" else -1
    own_best = best(own[:interval], goal)
    other_bests = [best(other, goal) for other in reached]
    match policy["policyType"]:
        case "Bandit":
            limit = _slack(policy, goal, best(other_bests, goal))
            bound = f"the best trial's value with slack, {limit:.6g}"
        case "MedianStopping":
            limit = median(mean(other) for other in reached)
            bound = f"the median of the other trials' averages, {limit:.6g}"
        case _:
            ranked = sorted((sign * value for value in [own_best, *other_bests]), reverse=True)
            cut = int(len(ranked) * policy["truncationPercentage"] / 100)
            if not cut:
                return ""
            limit = sign * ranked[-cut - 1]  # the last value that is not truncated
            bound = f"that of the last trial above the lowest {policy['truncationPercentage']} %, {limit:.6g}"
    if sign * own_best >= sign * limit:
        return ""
    return f"{policy['policyType']} at interval {interval}: its best value, {own_best:.6g}, is worse than {bound}"


def _slack(policy: Json, goal: Goal, top: float) -> float:
    """The worst value that a bandit policy accepts, from the best value of all trials."""
    sign = 1 if goal == "maximize" else -1
    if amount := policy.get("slackAmount"):
        return float(top - sign * amount)
    factor = 1 + policy["slackFactor"]
    return float(top / factor if goal == "maximize" else top * factor)
