"""Suites of `include/expectations/` held against data frames by Great Expectations.

A suite's file holds expectation configurations as Great Expectations writes them, with `meta.why` (the
reason, for people) and `meta.of` (which frame: `rows` unless said). A value that starts with `$` is looked
up in the model's config, so that a threshold stands once: `$clean.max_abs_amount`, or `-$…` for its negative.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import ValidationError

from ml.config import ConfigError, ModelConfig
from ml.config.types import Frozen
from ml.resources import resource_dir

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from great_expectations.datasource.fluent import PandasDatasource

EXAMPLES = 5  # rows shown of those that fail an expectation
WHERE = ("_file", "_row", "name", "example", "day", "customer_id", "as_of")  # columns that tell which row it is


class Meta(Frozen):
    why: str
    of: str = "rows"


class Expectation(Frozen):
    """One expectation configuration of Great Expectations."""

    type: str
    kwargs: dict[str, Any]
    severity: Literal["critical", "warning", "info"]
    description: str
    meta: Meta


class Suite(Frozen):
    name: str
    description: str
    expectations: list[Expectation]


@dataclass(frozen=True)
class Outcome:
    """What became of one expectation. `examples` are some of the rows that failed it, by column."""

    expectation: Expectation
    passed: bool
    observed: str
    examples: tuple[dict[str, str], ...]

    @property
    def sentence(self) -> str:
        """The failure in one line: what was expected, what was found, and an example."""
        told = f"{self.expectation.description}: {self.observed}"
        if self.examples:
            told += f", such as {', '.join(f'{name} {value}' for name, value in self.examples[0].items())}"
        return f"{told} ({self.expectation.meta.why})"


def load(name: str, model: ModelConfig) -> Suite:
    """`include/expectations/<name>.yaml` with the model's thresholds in it. Raises ConfigError naming file and key."""
    path = resource_dir("expectations") / f"{name}.yaml"
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        suite = Suite.model_validate(raw)
    except FileNotFoundError as error:
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise ConfigError(f"{path}: no such suite; there are: {known}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    except ValidationError as error:
        problems = "\n  ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors())
        raise ConfigError(f"{path}:\n  {problems}") from error
    try:
        filled = [e.model_copy(update={"kwargs": _filled(e.kwargs, model)}) for e in suite.expectations]
    except AttributeError as error:
        raise ConfigError(f"{path}: no such key in config/{model.model}.yaml: {error}") from error
    return suite.model_copy(update={"expectations": filled})


def _filled(value: Any, model: ModelConfig) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner, model) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, model) for inner in value]
    if isinstance(value, str) and value.startswith(("$", "-$")):
        found = reduce(getattr, value.lstrip("-$").split("."), model)
        return -found if value.startswith("-") else found  # type: ignore[operator]
    return value


def check(suite: Suite, frames: Mapping[str, pa.Table]) -> list[Outcome]:
    """Hold each frame against the suite's expectations of it; outcomes in the suite's order.

    An expectation that cannot be computed (a column is not there) has failed, and says so. Raises
    ConfigError for one that Great Expectations does not know, or whose frame is not given.
    """
    of: dict[str, dict[int, Expectation]] = {name: {} for name in frames}
    for place, expectation in enumerate(suite.expectations):
        if expectation.meta.of not in of:
            raise ConfigError(
                f"suite {suite.name}: '{expectation.description}' is of {expectation.meta.of!r}; "
                f"there are: {', '.join(sorted(of))}"
            )
        of[expectation.meta.of][place] = expectation
    source = _data_source(suite.name)
    outcomes: dict[int, Outcome] = {}
    for name, asked in of.items():
        frame = frames[name].to_pandas()
        for place, found in _validate(source, name, asked, frame):
            outcomes[place] = _outcome(asked[place], found, frame)
    return [outcomes[place] for place in sorted(outcomes)]


def _data_source(name: str) -> PandasDatasource:
    """A Great Expectations context of this call's own: nothing on disk, nothing sent, nothing printed."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of engines it looks for at import, which are not used here
        import great_expectations as gx
        from great_expectations.data_context.types.base import (
            DataContextConfig,
            InMemoryStoreBackendDefaults,
            ProgressBarsConfig,
        )

    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)  # it sets INFO itself
    # Its own default for this mode makes a site for documents, and leaves the site's folder behind in /tmp.
    nothing_kept = DataContextConfig(store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False))
    context = gx.get_context(mode="ephemeral", project_config=nothing_kept)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context.data_sources.add_pandas(name)


def _validate(
    source: PandasDatasource, name: str, asked: Mapping[int, Expectation], frame: pd.DataFrame
) -> list[tuple[int, dict[str, Any]]]:
    """Great Expectations' own results, each with the place of its expectation in the suite."""
    from great_expectations.core.expectation_suite import ExpectationSuite

    suite = ExpectationSuite(name=name, expectations=[_native(e, place) for place, e in asked.items()])
    batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
    # Positions of failing rows, not their keys: naming index columns costs a row loop (40 s for 180,000 rows)
    results = batch.get_batch({"dataframe": frame}).validate(
        suite, result_format={"result_format": "SUMMARY", "partial_unexpected_count": EXAMPLES}
    )
    found = [result.to_json_dict() for result in results.results]
    return [(one["expectation_config"]["meta"]["place"], one) for one in found]


def _native(expectation: Expectation, place: int) -> Any:
    """The same as Great Expectations' own object. Raises ConfigError when it does not know type or kwargs."""
    from great_expectations.exceptions import GreatExpectationsError
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    try:
        return ExpectationConfiguration(
            type=expectation.type, kwargs=expectation.kwargs, severity=expectation.severity, meta={"place": place}
        ).to_domain_obj()
    except (GreatExpectationsError, ValueError) as error:
        raise ConfigError(f"expectation '{expectation.description}' ({expectation.type}): {error}") from error


def _outcome(expectation: Expectation, found: dict[str, Any], frame: pd.DataFrame) -> Outcome:
    result = found["result"]
    if problem := _exception(found["exception_info"]):
        return Outcome(expectation, passed=False, observed=f"could not be computed: {problem}", examples=())
    examples: tuple[dict[str, str], ...] = ()
    if not found["success"] and (positions := result.get("partial_unexpected_index_list")):
        columns = list(dict.fromkeys(c for c in (*WHERE, *_columns(expectation)) if c in frame.columns))
        shown = frame.iloc[positions[:EXAMPLES]][columns]
        told = shown.astype("object").where(shown.notna(), "missing")
        examples = tuple({c: str(v) for c, v in row.items()} for row in told.to_dict("records"))
    return Outcome(expectation, bool(found["success"]), _observed(expectation, result), examples)


def _observed(expectation: Expectation, result: dict[str, Any]) -> str:
    """What was found, in words: rows that do and do not, a set's differences, or a figure."""
    if "element_count" in result:
        bad, rows, what = result["unexpected_count"], result["element_count"], expectation.meta.of
        if not bad:
            return f"all {rows:,} {what} do"
        allowed = expectation.kwargs.get("mostly")
        share = f" ({result['unexpected_percent']:.3g} %; at most {100 * (1 - allowed):.3g} % may)" if allowed else ""
        return f"{bad:,} of {rows:,} {what} do not{share}"
    if "partial_missing_list" in result:
        lacking, besides = result["partial_missing_list"], result["partial_unexpected_list"]
        parts = [f"lacks {', '.join(map(str, lacking))}"] if lacking else []
        parts += [f"has {', '.join(map(str, besides))} besides"] if besides else []
        return " and ".join(parts) or "exactly these"
    value = result.get("observed_value")
    return f"found {value:,}" if isinstance(value, int) else f"found {value}"


def _columns(expectation: Expectation) -> list[str]:
    """The columns that an expectation is about."""
    kwargs = expectation.kwargs
    single = [kwargs[key] for key in ("column", "column_A", "column_B") if key in kwargs]
    return [*single, *kwargs.get("column_list", [])]


def _exception(info: dict[str, Any]) -> str:
    """What went wrong while computing; Great Expectations nests it by metric, or not."""
    nested = info.values() if "raised_exception" not in info else [info]
    told = [str(one["exception_message"]) for one in nested if one.get("raised_exception", True)]
    return "; ".join(dict.fromkeys(told))
