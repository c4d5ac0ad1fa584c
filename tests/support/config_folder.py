"""A folder of config files of a test's own: sources, feature tables and models derived from the project's, and as many as needed.

The queries that they name are the project's own; nothing here runs one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

Values = dict[str, Any]


class ConfigFolder:
    """`folder` is for `ML_RESOURCES`. It starts with `platform.yaml` and no node."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shipped = Path(__file__).resolve().parents[2] / "config"
        (folder / "config").mkdir(parents=True)
        for kind in ("sources", "features", "models"):
            (folder / "config" / kind).mkdir()
        self.write("platform.yaml", (self._shipped / "platform.yaml").read_text(encoding="utf-8"))

    def write(self, name: str, text: str) -> None:
        (self.folder / "config" / name).write_text(text, encoding="utf-8")

    def remove(self, name: str) -> None:
        (self.folder / "config" / name).unlink()

    def source(self, name: str, **changes: Any) -> None:
        """A source like `transactions`, without daily tables; a snapshot with `kind="snapshot"`."""
        self._derive("sources/transactions.yaml", f"sources/{name}.yaml", {"source": name, "daily": {}}, changes)

    def table(self, name: str, *sources: str, carried: tuple[str, ...] = (), **changes: Any) -> None:
        """A feature table like `customers` that waits for these sources, except for those that are `carried`.

        Sources whose name begins with `ref` are snapshots, the others are facts.
        """
        inputs = {}
        for source in (*sources, *carried):
            edge: Values = {"missing": "carry" if source in carried else "wait"}
            inputs[f"silver.{source}"] = edge | ({} if source.startswith("ref") else {"window": {"back": "all"}})
        self._derive("features/customers.yaml", f"features/{name}.yaml", {"table": name, "inputs": inputs}, changes)

    def model(self, name: str, *tables: str, label: str, **changes: Any) -> None:
        """A model like `churn` on these feature tables, whose columns are shared out; `label`: the source of its label."""
        shipped: Values = yaml.safe_load((self._shipped / "models/churn.yaml").read_text(encoding="utf-8"))
        columns = [column for of_table in shipped["features"].values() for column in of_table]
        own: Values = {
            "model": name,
            "features": {table: columns[n :: len(tables)] for n, table in enumerate(tables)},
            "label": {**shipped["label"], "inputs": [f"silver.{label}"]},
            "train": {**shipped["train"], "table": f"features.{name}_training_set"},
            "score": {**shipped["score"], "table": f"gold.{name}_scores"},
            "monitor": {**shipped["monitor"], "table": f"gold.{name}_drift"},
            "report": {**shipped["report"], "connection": f"powerbi_{name}"},
        }
        self._derive("models/churn.yaml", f"models/{name}.yaml", own, changes)

    def examples_model(self, name: str, source: str, **changes: Any) -> None:
        """A model that learns from the rows of a source."""
        cutoffs = dict.fromkeys(("test_cutoffs", "train_cutoffs", "step_days", "min_history_days"))
        self.model(name, "x", label=source)
        settings = self.read(f"models/{name}.yaml")
        columns = settings.pop("features")["x"]
        settings.pop("population")
        split = {"by": "day", "test_share": 0.2}
        settings["examples"] = {
            "table": f"silver.{source}", "columns": columns, "split": split, "restate_days": 31,
        }  # fmt: skip
        settings["label"] = {"name": settings["label"]["name"]}
        settings["train"] = {key: value for key, value in settings["train"].items() if key not in cutoffs}
        self.write(f"models/{name}.yaml", yaml.safe_dump(_changed(settings, changes)))

    def read(self, name: str) -> Values:
        settings: Values = yaml.safe_load((self.folder / "config" / name).read_text(encoding="utf-8"))
        return settings

    def _derive(self, shipped: str, name: str, own: Values, changes: Values) -> None:
        settings: Values = yaml.safe_load((self._shipped / shipped).read_text(encoding="utf-8"))
        self.write(name, yaml.safe_dump(_changed(settings | own, changes)))


def _changed(settings: Values, changes: Values) -> Values:
    """The settings with other values; in a section, the values that are not given stay. None takes a key away."""
    for key, value in changes.items():
        before = settings.get(key)
        settings[key] = {**before, **value} if isinstance(value, dict) and isinstance(before, dict) else value
    return {key: value for key, value in settings.items() if value is not None}


def ten_sources_and_fifty_models(config: ConfigFolder) -> None:
    """Sources s0 to s9, feature tables t0 to t19 (the odd ones of two sources), models m0 to m49 (the odd ones of two tables)."""
    for n in range(10):
        config.source(f"s{n}")
    for n in range(20):
        config.table(f"t{n}", *{f"s{n % 10}", f"s{(n + n % 2) % 10}"})
    for n in range(50):
        tables = [f"t{n % 20}", f"t{(n + 2) % 20}"] if n % 2 else [f"t{n % 20}"]
        config.model(f"m{n}", *tables, label=f"s{n % 10}")


BUSINESS = {
    "source": ("a", "b"),
    "table": ("of_a", "of_b", "of_both"),
    "model": ("on_a", "on_b", "on_both"),
}


def business(config: ConfigFolder) -> None:
    """Sources a and b, a table of each and one of both, and a model on each table."""
    config.source("a")
    config.source("b")
    config.table("of_a", "a")
    config.table("of_b", "b")
    config.table("of_both", "a", "b")
    config.model("on_a", "of_a", label="a")
    config.model("on_b", "of_b", label="b")
    config.model("on_both", "of_both", label="a")


def not_yaml(name: str) -> Callable[[ConfigFolder], None]:
    return lambda config: config.write(name, "table: [\n")


def unknown_key(name: str) -> Callable[[ConfigFolder], None]:
    def change(config: ConfigFolder) -> None:
        path = config.folder / "config" / name
        path.write_text(path.read_text(encoding="utf-8") + "\nthreshhold: 3\n", encoding="utf-8")

    return change
