"""The files of a node, under another name: config with its comments, SQL, and expectations."""

from __future__ import annotations

import re

from ml.check.arrivals import find_accepted
from ml.check.days import CUTOFF
from ml.check.scaffold.yaml_edit import edit
from ml.check.text import load_text
from ml.config import FeatureTableConfig, ModelConfig, SourceConfig
from ml.engine import open_engine
from ml.resources import resource_dir


def copy_source(source: SourceConfig, name: str) -> dict[str, str]:
    """A source whose silver tables have other names; its queries read these, and its data file has accepted rows."""
    daily = {table: f"silver.{_renamed(table.rpartition('.')[2], source.source, name)}" for table in source.daily}
    queries = {source.clean.query: f"sources/{name}"}
    queries |= {query: f"sources/{daily[table].rpartition('.')[2]}" for table, query in source.daily.items()}
    values = {("source",): name, ("clean", "query"): queries[source.clean.query]}
    values |= {("daily", table): queries[query] for table, query in source.daily.items()}
    text = edit(_config(f"sources/{source.source}"), values, {("daily", table): new for table, new in daily.items()})
    files = {f"config/sources/{name}.yaml": _comments(text, queries)}
    for old, new in queries.items():
        files[f"include/sql/{new}.sql"] = _rename_table(_sql(old), source.source, name)
        files |= _cases(old, new, {source.source: name})
    files |= _expectations(source.source, name, ("arrival", "silver"))
    files[f"include/examples/{name}/{CUTOFF}/{name}.csv"] = _data(source)
    return files


def copy_feature_table(table: FeatureTableConfig, name: str) -> dict[str, str]:
    query = f"features/{name}"
    text = edit(_config(f"features/{table.table}"), {("table",): name, ("query",): query})
    return {
        f"config/features/{name}.yaml": _comments(text, {table.query: query}),
        f"include/sql/{query}.sql": _sql(table.query),
        **_cases(table.query, query, {}),
    }


def copy_model(model: ModelConfig, name: str) -> dict[str, str]:
    """A model with tables, queries and a Power BI connection of its own."""
    queries = {}
    values = {("model",): name, ("experiment",): f"/Shared/{name}", ("score", "table"): f"gold.{name}_scores"}
    values |= {("train", "table"): f"features.{name}_training_set", ("monitor", "table"): f"gold.{name}_drift"}
    if model.report is not None:
        values["report", "connection"] = f"powerbi_{name}"
    if model.population is not None:
        queries[model.population.query] = values["population", "query"] = f"populations/{name}"
    if model.label.query is not None:
        queries[model.label.query] = values["label", "query"] = f"labels/{name}"
    files = {f"config/models/{name}.yaml": _comments(edit(_config(f"models/{model.model}"), values), queries)}
    for old, new in queries.items():
        files[f"include/sql/{new}.sql"] = _sql(old)
        files |= _cases(old, new, {})
    return files | _expectations(model.model, name, ("training",))


def _renamed(table: str, old: str, new: str) -> str:
    """`customer_days` of a source becomes `<new>_customer_days`; a name that contains the source's gets the new one."""
    return table.replace(old, new) if old in table else f"{new}_{table}"


def _config(name: str) -> str:
    return (resource_dir("config") / f"{name}.yaml").read_text(encoding="utf-8")


def _sql(query: str) -> str:
    return (resource_dir("sql") / f"{query}.sql").read_text(encoding="utf-8")


def _comments(text: str, queries: dict[str, str]) -> str:
    """The paths of queries in comments, too."""
    for old, new in queries.items():
        text = text.replace(f"include/sql/{old}.sql", f"include/sql/{new}.sql")
    return text


def _rename_table(sql: str, old: str, new: str) -> str:
    """The table `old` where it is read, and where its columns are qualified by it."""
    sql = re.sub(rf"\b(FROM|JOIN)(\s+){re.escape(old)}\b", rf"\g<1>\g<2>{new}", sql, flags=re.IGNORECASE)
    sql = re.sub(rf"\bsilver\.{re.escape(old)}\b", f"silver.{new}", sql)
    return re.sub(rf"(?<![\w.]){re.escape(old)}\.(?=\w)", f"{new}.", sql)


def _cases(old: str, new: str, tables: dict[str, str]) -> dict[str, str]:
    """The SQL cases of a query, where there are any; tables that they name may have other names."""
    path = resource_dir("config").parent / "tests" / "sql" / f"{old}.yaml"
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8").replace(f"include/sql/{old}.sql", f"include/sql/{new}.sql")
    for table, name in tables.items():
        text = re.sub(rf"(?<![\w./]){re.escape(table)}:", f"{name}:", text)
    return {f"tests/sql/{new}.yaml": text}


def _expectations(old: str, new: str, suites: tuple[str, ...]) -> dict[str, str]:
    paths = {suite: resource_dir("expectations") / old / f"{suite}.yaml" for suite in suites}
    return {
        f"include/expectations/{new}/{suite}.yaml": path.read_text(encoding="utf-8")
        for suite, path in paths.items()
        if path.exists()
    }


def _data(source: SourceConfig) -> str:
    """A CSV file of a few rows that the source's query accepts."""
    text = load_text(source.clean.query)
    values = {"timezone": source.timezone, **source.clean.settings}
    bound = {name: value for name, value in values.items() if name in text.parameters}
    engine = open_engine("duckdb")
    accepted = find_accepted(
        source.column_names,
        [name for name in source.columns if name.endswith("_id")],
        text.texts,
        source.clean.settings,
        lambda bronze: engine.run(source.clean.query, {"bronze": bronze}, bound),
    )
    lines = [",".join(source.column_names)]
    for number in range(4 if accepted else 0):
        assert accepted is not None
        good = {name: [text for text in texts if text] or [""] for name, texts in accepted.good.items()}
        row = {name: texts[number % len(texts)] if name.endswith("_id") else texts[0] for name, texts in good.items()}
        lines.append(",".join(_cell(str(row[name]).replace("{day}", str(CUTOFF))) for name in source.column_names))
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\n') else text
