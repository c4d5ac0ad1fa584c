"""Checks data frames against the suites of `include/expectations/`, with Great Expectations.

`include/expectations/<suite>.yaml` has what holds for every source, or every model; `<name>/<suite>.yaml` beside it adds
what holds for the source or model of that name, and may be missing. These files have expectation configurations in the
format of Great Expectations, with `meta.why` (the reason, for people), `meta.of` (the frame; default `rows`) and
`meta.needs` (a key of the config; where it has no value, the expectation is left out). A value that starts with `$` is
looked up in the config, so that a threshold exists once: `$clean.settings.max_abs_amount`, or `-$…` for its negative.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ml.config import ConfigError, ModelConfig, SourceConfig
from ml.config.load import config_path
from ml.config.types import Frozen
from ml.resources import resource_dir

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from great_expectations.datasource.fluent import PandasDatasource

Config: TypeAlias = SourceConfig | ModelConfig
Parsed = TypeVar("Parsed", bound=BaseModel)

MAX_EXAMPLES = 5  # failing rows shown per expectation
PLACE_COLUMNS = ("_file", "_row", "name", "example", "day", "as_of")  # where a failing row, file or feature is found


class Meta(Frozen):
    why: str
    of: str = "rows"
    needs: str | None = None


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


class Addition(Frozen):
    """The expectations that one source or model adds to a suite."""

    expectations: list[Expectation]


@dataclass(frozen=True)
class Outcome:
    """The result of one expectation. `examples` are some of the failing rows, by column."""

    expectation: Expectation
    passed: bool
    observed: str
    examples: tuple[dict[str, str], ...]

    @property
    def sentence(self) -> str:
        """The failure in one line: the expectation, what was observed, an example, and the reason."""
        failure = f"{self.expectation.description}: {self.observed}"
        if self.examples:
            failure += f", such as {', '.join(f'{name} {value}' for name, value in self.examples[0].items())}"
        return f"{failure} ({self.expectation.meta.why})"


def load(name: str, config: Config) -> Suite:
    """The suite `name` of a source or model, with the config's values filled in. Raises ConfigError naming file and key."""
    folder = resource_dir("expectations")
    path = folder / f"{name}.yaml"
    suite = read_file(path, Suite)
    expectations = fill_in(path, suite.expectations, config)
    own = folder / config.name / f"{name}.yaml"
    if own.exists():
        expectations += fill_in(own, read_file(own, Addition).expectations, config)
    return suite.model_copy(update={"expectations": expectations})


def identifying_columns(config: Config) -> tuple[str, ...]:
    """The columns that tell people which row of a source or model is meant."""
    return config.required_columns if isinstance(config, SourceConfig) else (config.entity,)


def read_file(path: Path, kind: type[Parsed]) -> Parsed:
    try:
        return kind.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        suites = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise ConfigError(f"{path}: no such suite; existing ones: {suites}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    except ValidationError as error:
        problems = "\n  ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors())
        raise ConfigError(f"{path}:\n  {problems}") from error


def fill_in(path: Path, expectations: Sequence[Expectation], config: Config) -> list[Expectation]:
    """Those of a file's expectations whose `needs` has a value, filled in. Raises ConfigError naming file and key."""
    filled = []
    for expectation in expectations:
        needs = expectation.meta.needs
        try:
            if needs is None or _look_up(needs, config) is not None:
                filled.append(expectation.model_copy(update={"kwargs": _fill(expectation.kwargs, config)}))
        except KeyError as error:
            kind = "source" if isinstance(config, SourceConfig) else "model"
            place = config_path(kind, config.name)
            raise ConfigError(f"{path}: '{expectation.description}': {error.args[0]} in {place}") from error
    return filled


def _fill(value: Any, config: Config) -> Any:
    """Replace `$…` and `-$…` by the config's values. Raises KeyError with what the config does not have."""
    if isinstance(value, dict):
        return {key: _fill(inner, config) for key, inner in value.items()}
    if isinstance(value, list):
        return [_fill(inner, config) for inner in value]
    if isinstance(value, str) and value.startswith(("$", "-$")):
        key = value.lstrip("-$")
        threshold = _look_up(key, config)
        if threshold is None:
            raise KeyError(f"no value for {key}")
        if not value.startswith("-"):
            return threshold
        if isinstance(threshold, bool) or not isinstance(threshold, int | float):
            raise KeyError(f"no number to negate at {key}, but {threshold!r},")
        return -threshold
    return value


def _look_up(key: str, config: Config) -> Any:
    """The value of a key such as `clean.settings.max_abs_amount`. Raises KeyError when there is no such key."""
    value: Any = config
    for part in key.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, BaseModel) and part in type(value).model_fields:
            value = getattr(value, part)
        else:
            raise KeyError(f"no such key as {key}")
    return value


def check(suite: Suite, frames: Mapping[str, pa.Table], identifying: Sequence[str] = ()) -> list[Outcome]:
    """Check each frame against its expectations; outcomes in the suite's order.

    `identifying` are the columns that are shown with a failing row, besides where it is found and what was checked.
    An expectation that cannot be computed (for example because a column is missing) has failed, with the error as its
    observation. Raises ConfigError for one that Great Expectations does not know, or whose frame is not given.
    """
    by_frame: dict[str, dict[int, Expectation]] = {name: {} for name in frames}
    for position, expectation in enumerate(suite.expectations):
        if expectation.meta.of not in by_frame:
            raise ConfigError(
                f"suite {suite.name}: '{expectation.description}' is of frame {expectation.meta.of!r}; "
                f"existing frames: {', '.join(sorted(by_frame))}"
            )
        by_frame[expectation.meta.of][position] = expectation
    source = _data_source(suite.name)
    outcomes: dict[int, Outcome] = {}
    for name, expectations in by_frame.items():
        frame = frames[name].to_pandas()
        for position, result in _validate(source, name, expectations, frame):
            outcomes[position] = _outcome(expectations[position], result, frame, identifying)
    return [outcomes[position] for position in sorted(outcomes)]


def _data_source(name: str) -> PandasDatasource:
    """A data source in a new Great Expectations context: nothing is written to disk, sent or printed."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about engines that it looks for at import and that are not used here
        import great_expectations as gx
        from great_expectations.data_context.types.base import (
            DataContextConfig,
            InMemoryStoreBackendDefaults,
            ProgressBarsConfig,
        )

    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)  # it sets INFO itself
    # The default for this mode creates a documentation site and leaves its folder behind in /tmp.
    in_memory = DataContextConfig(store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False))
    context = gx.get_context(mode="ephemeral", project_config=in_memory)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context.data_sources.add_pandas(name)


def _validate(
    source: PandasDatasource, name: str, expectations: Mapping[int, Expectation], frame: pd.DataFrame
) -> list[tuple[int, dict[str, Any]]]:
    """Great Expectations' own results, each with the position of its expectation in the suite."""
    from great_expectations.core.expectation_suite import ExpectationSuite

    suite = ExpectationSuite(name=name, expectations=[_native(e, position) for position, e in expectations.items()])
    batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
    # Failing rows by position, not by key: index columns cost a loop over all rows (40 s for 180,000 rows).
    results = batch.get_batch({"dataframe": frame}).validate(
        suite, result_format={"result_format": "SUMMARY", "partial_unexpected_count": MAX_EXAMPLES}
    )
    dicts = [result.to_json_dict() for result in results.results]
    return [(result["expectation_config"]["meta"]["position"], result) for result in dicts]


def _native(expectation: Expectation, position: int) -> Any:
    """Great Expectations' own object. Raises ConfigError for a type or kwargs that it does not know."""
    from great_expectations.exceptions import GreatExpectationsError
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    try:
        return ExpectationConfiguration(
            type=expectation.type, kwargs=expectation.kwargs, severity=expectation.severity, meta={"position": position}
        ).to_domain_obj()
    except (GreatExpectationsError, ValueError) as error:
        raise ConfigError(f"expectation '{expectation.description}' ({expectation.type}): {error}") from error


def _outcome(
    expectation: Expectation, validated: dict[str, Any], frame: pd.DataFrame, identifying: Sequence[str]
) -> Outcome:
    result = validated["result"]
    if problem := _exception(validated["exception_info"]):
        return Outcome(expectation, passed=False, observed=f"could not be computed: {problem}", examples=())
    examples: tuple[dict[str, str], ...] = ()
    if not validated["success"] and (positions := result.get("partial_unexpected_index_list")):
        named = (*PLACE_COLUMNS, *identifying, *_columns(expectation))
        columns = list(dict.fromkeys(name for name in named if name in frame.columns))
        shown = frame.iloc[positions[:MAX_EXAMPLES]][columns]
        readable = shown.astype("object").where(shown.notna(), "missing")
        examples = tuple({c: str(v) for c, v in row.items()} for row in readable.to_dict("records"))
    return Outcome(expectation, bool(validated["success"]), _observed(expectation, result), examples)


def _observed(expectation: Expectation, result: dict[str, Any]) -> str:
    """The observation in words: how many rows fail, how a set differs, or a single value."""
    if "element_count" in result:
        failing, rows, frame = result["unexpected_count"], result["element_count"], expectation.meta.of
        if not failing:
            return f"all {rows:,} {frame} do"
        allowed = expectation.kwargs.get("mostly")
        share = f" ({result['unexpected_percent']:.3g} %; at most {100 * (1 - allowed):.3g} % may)" if allowed else ""
        return f"{failing:,} of {rows:,} {frame} do not{share}"
    if "partial_missing_list" in result:
        missing, unexpected = result["partial_missing_list"], result["partial_unexpected_list"]
        parts = [f"lacks {', '.join(map(str, missing))}"] if missing else []
        parts += [f"also has {', '.join(map(str, unexpected))}"] if unexpected else []
        return " and ".join(parts) or "exactly these"
    value = result.get("observed_value")
    return f"found {value:,}" if isinstance(value, int) else f"found {value}"


def _columns(expectation: Expectation) -> list[str]:
    """The columns that an expectation checks."""
    kwargs = expectation.kwargs
    single = [kwargs[key] for key in ("column", "column_A", "column_B") if key in kwargs]
    return [*single, *kwargs.get("column_list", [])]


def _exception(info: dict[str, Any]) -> str:
    """The error messages of an expectation that could not be computed; Great Expectations nests them by metric, or not."""
    errors = info.values() if "raised_exception" not in info else [info]
    messages = [str(error["exception_message"]) for error in errors if error.get("raised_exception", True)]
    return "; ".join(dict.fromkeys(messages))
