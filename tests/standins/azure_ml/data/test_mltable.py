"""MLTable files: which are read, and which are rejected and why."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from standins.azure_ml.data.mltable import BadTableError, TableNotImplementedError, file_patterns, read_table

READ = "transformations: [read_parquet]"


@pytest.mark.parametrize(
    ("text", "problem", "why"),
    [
        pytest.param("a: [", BadTableError, "not YAML", id="no-yaml"),
        pytest.param("type: mltable", BadTableError, "'paths' is missing or empty", id="no-paths"),
        pytest.param("paths: [x]\n" + READ, BadTableError, "one of file, pattern and folder", id="bare-path"),
        pytest.param("paths: [{file: ../x}]\n" + READ, TableNotImplementedError, "outside its own folder", id="up"),
        pytest.param("paths: [{file: /x}]\n" + READ, TableNotImplementedError, "outside its own", id="absolute"),
        pytest.param(
            "paths: [{file: 'https://x/y'}]\n" + READ, TableNotImplementedError, "outside its own", id="elsewhere"
        ),
        pytest.param("paths: [{file: x}]", TableNotImplementedError, "read_parquet .none", id="no-reading"),
        pytest.param(
            "paths: [{file: x}]\ntransformations: [{read_delimited: {}}]",
            TableNotImplementedError,
            "read_deli",
            id="csv",
        ),
        pytest.param(
            "paths: [{file: x}]\ntransformations: [read_parquet, {take: 5}]",
            TableNotImplementedError,
            "take",
            id="take",
        ),
        pytest.param(
            "paths: [{file: x}]\ntransformations: [{read_parquet: {include_path_column: true}}]",
            TableNotImplementedError,
            "include_path_column",
            id="option",
        ),
        pytest.param("paths: [{file: x}]\nmetadata: {}\n" + READ, TableNotImplementedError, "metadata", id="metadata"),
    ],
)
def test_an_unreadable_table_is_refused(text: str, problem: type[Exception], why: str) -> None:
    with pytest.raises(problem, match=why):
        file_patterns(text)


def test_several_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for number in (2, 1):
        pq.write_table(pa.table({"n": [number]}), tmp_path / f"part-{number}.parquet")
    (tmp_path / "MLTable").write_text("paths: [{folder: ./}]\n" + READ)
    assert read_table(tmp_path)["n"].to_pylist() == [1, 2]
    pq.write_table(pa.table({"m": [3]}), tmp_path / "part-3.parquet")
    with pytest.raises(BadTableError, match="different columns"):
        read_table(tmp_path)
    (tmp_path / "MLTable").write_text("paths: [{file: none.parquet}]\n" + READ)
    with pytest.raises(BadTableError, match=r"no file matches none\.parquet"):
        read_table(tmp_path)
