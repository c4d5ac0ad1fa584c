"""How often chance decides the gate: seeded rounds of a champion and a challenger whose true difference is known.

    python bench/gate.py [--rounds 200] [--rows 1600 4000] [--cases equal better]

Each round draws new customers, lets both models score them, and runs the real evaluation and the real gate with the
thresholds of config/models/churn.yaml. The output is the share of promoted challengers per true difference in AUC, with its
95 % interval (Wilson).
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.config import ModelConfig, load_model
from ml.evaluate import evaluation
from ml.evaluate.cohorts import wilson
from ml.evaluate.metrics import measure
from ml.gate.decide import decide

Floats = NDArray[np.float64]

CHAMPION_AUC = 0.75  # the middle of the AUCs on CDNOW, Online Retail and the shop
ODDS = 2.0  # weight of a customer's true inclination: the best possible model has an AUC of about 0.85
SHARED = 0.98  # common share of the models' noise: on 1,600 rows their difference is then as certain as on real data
CHOICES = ("keep", "promote")
CASES = {"much worse": -0.03, "worse": -0.02, "equal": 0.0, "better": 0.02, "much better": 0.03}


@dataclass(frozen=True)
class PromotionRate:
    """How often challengers of one true difference were promoted."""

    case: str
    rows: int
    rounds: int
    promoted: dict[str, int]  # by `when_equal`
    half: float  # mean half-width of the paired interval, which `max_loss` must be compared with

    def __str__(self) -> str:
        shares = []
        for choice, count in self.promoted.items():
            low, high = wilson(count, self.rounds)
            shares.append(f"{choice} {count / self.rounds:6.1%} ({low:.1%} to {high:.1%})")
        case = f"{self.rows:6} rows  {self.case:12} {CASES[self.case]:+.3f} known to +-{self.half:.4f}"
        return f"{case}  promoted with when_equal: {', '.join(shares)}"


def _scores(truth: Floats, noise: Floats, size: float) -> Floats:
    """The scores of a calibrated model that observes the true inclination through noise of this size."""
    unobserved = size**2 / (1 + size**2)  # variance of the truth that the model does not observe
    spread = math.sqrt(1 + math.pi * unobserved * ODDS**2 / 8)
    scores: Floats = 1 / (1 + np.exp(-ODDS * _observed(truth, noise, size) / spread))
    return scores


def _observed(truth: Floats, noise: Floats, size: float) -> Floats:
    return (truth + size * noise) / (1 + size**2)


def _auc(y: Floats, p: Floats) -> float:
    return float(measure(y, p, np.ones((1, len(y))), threshold=0.5, bins=10)["roc_auc"][0])


@cache
def noise_for(auc: float) -> float:
    """The noise with which a model has this AUC, on 100,000 customers; known to +-0.002, the same error for both models."""
    rng = np.random.default_rng(1)
    truth, noise = rng.normal(size=(2, 100_000))
    y = (rng.random(100_000) < 1 / (1 + np.exp(-ODDS * truth))).astype(float)
    low, high = 0.0, 5.0
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if _auc(y, _scores(truth, noise, middle)) > auc else (low, middle)
    return (low + high) / 2


def run_round(gain: float, rows: int, seed: int, config: ModelConfig) -> tuple[dict[str, bool], float]:
    """Whether the challenger is promoted, by `when_equal`, and half the width of the paired interval of AUC."""
    rng = np.random.default_rng(seed)
    truth, shared, own, other = rng.normal(size=(4, rows))
    y = (rng.random(rows) < 1 / (1 + np.exp(-ODDS * truth))).astype(float)
    apart = math.sqrt(1 - SHARED**2)
    champion = _scores(truth, SHARED * shared + apart * own, noise_for(CHAMPION_AUC))
    challenger = _scores(truth, SHARED * shared + apart * other, noise_for(CHAMPION_AUC + gain))
    outcome = evaluation.evaluate(y, challenger, champion, np.arange(rows), config.evaluate, seed) | PASSING_REST
    approved = {
        choice: decide(config.gate.model_copy(update={"when_equal": choice}), outcome).approved for choice in CHOICES
    }
    difference = outcome["metrics"]["difference"]["roc_auc"]
    return approved, (difference["high"] - difference["low"]) / 2


# the parts of an evaluation that the rounds do not vary, all of which pass
PASSING_REST: dict[str, Any] = {
    "champion": "1",
    "training_set_version": 1,
    "validation": {"passed": True, "training_set_version": 1},
    "schema": {"equal": True, "problems": []},
    "test_from": "2026-05-01",
    "learnt_through": {"challenger": "2026-05-01", "champion": "2026-04-01"},
    "groups": {"country": {"compared": ["(unknown)"], "disparity": {}}},
    "behaviour": {name: {"violations": 0.0} for name in load_model("churn").gate.max_violations},
    "cost": {"ms_per_1000_rows": 20.0, "model_bytes": 90_000},
}


def run_rounds(case: str, rows: int, count: int, config: ModelConfig) -> PromotionRate:
    """Run `count` rounds; the n-th round of every case has the same customers."""
    results = [run_round(CASES[case], rows, 1000 + n, config) for n in range(count)]
    promoted = {choice: sum(approved[choice] for approved, _ in results) for choice in CHOICES}
    return PromotionRate(case, rows, count, promoted, float(np.mean([half for _, half in results])))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--rows", type=int, nargs="+", default=[1600, 4000])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    args = parser.parse_args()
    for rows in args.rows:
        for case in args.cases:
            print(run_rounds(case, rows, args.rounds, load_model("churn")), flush=True)


if __name__ == "__main__":
    main()
