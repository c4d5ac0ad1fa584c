"""Who may import whom, and what no file may do: the rules that keep one code path, read from the source itself."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("dags", "plugins", "src", "standins", "local")
HEAVY = (
    "azure.ai.ml", "azure.mgmt", "deltalake", "duckdb", "great_expectations", "lightgbm", "matplotlib", "mlflow",
    "pandas", "pyarrow", "sklearn",
)  # fmt: skip


@dataclass(frozen=True)
class Import:
    """One import: where it is, what it names, and whether it happens when the file is read."""

    file: Path
    line: int
    module: str
    at_top: bool

    def is_of(self, *packages: str) -> bool:
        return any(self.module == package or self.module.startswith(f"{package}.") for package in packages)

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.module}"


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def sources(*folders: str) -> list[Path]:
    found = [
        file for folder in folders for file in sorted((ROOT / folder).rglob("*.py")) if "node_modules" not in file.parts
    ]
    assert found, f"nothing to look at in {folders}"
    return found


def nodes(node: ast.AST, at_top: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    """Every node, and whether it runs when the file is read: not in a function, not for type checkers only."""
    yield node, at_top
    for name, value in ast.iter_fields(node):
        deeper = at_top and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and name == "body":
            deeper = False
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from nodes(child, deeper)


def imports(*folders: str) -> list[Import]:
    found = []
    for file in sources(*folders):
        for node, at_top in nodes(tree(file)):
            if isinstance(node, ast.Import):
                found += [Import(file, node.lineno, alias.name, at_top) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}:{node.lineno}: relative imports hide who imports whom"
                found += [Import(file, node.lineno, f"{node.module}.{alias.name}", at_top) for alias in node.names]
    return found


class TestWhoImportsWhom:
    def test_the_stages_know_nothing_of_airflow_nor_of_where_they_run(self) -> None:
        bad = [i for i in imports("src/ml") if i.is_of("airflow", "mlops", "azure_ml", "local", "standins", "tests")]
        assert not bad, "src/ml runs without Airflow, on any machine: " + "; ".join(map(str, bad))

    @pytest.mark.parametrize("folder", ["dags", "plugins", "src", "local"])
    def test_nobody_knows_the_stand_ins(self, folder: str) -> None:
        bad = [i for i in imports(folder) if i.is_of("standins")]
        assert not bad, "Connections and the environment decide which cloud answers: " + "; ".join(map(str, bad))

    def test_the_stand_ins_know_nothing_of_the_project(self) -> None:
        bad = [i for i in imports("standins") if i.is_of("ml", "mlops", "azure_ml", "local", "airflow", "tests")]
        assert not bad, "a stand-in that knows its user can please it: " + "; ".join(map(str, bad))

    def test_plugins_know_the_configuration_and_nothing_else_of_the_stages(self) -> None:
        bad = [i for i in imports("plugins") if i.is_of("ml") and not i.is_of("ml.config")]
        bad += [i for i in imports("plugins") if i.is_of("local", "tests")]
        assert not bad, "HOW is in plugins, WHAT is in src/ml: " + "; ".join(map(str, bad))

    def test_the_azure_ml_plugin_could_be_a_package_of_its_own(self) -> None:
        bad = [
            i
            for i in imports("plugins/azure_ml")
            if i.is_of("ml", "mlops.tasks.stages", "mlops.scheduling.assets", "mlops.tasks.defaults")
        ]
        assert not bad, "; ".join(map(str, bad))

    @pytest.mark.parametrize("folder", ["dags", "plugins"])
    def test_what_airflow_reads_imports_nothing_heavy_at_the_top(self, folder: str) -> None:
        bad = [i for i in imports(folder) if i.at_top and i.is_of(*HEAVY)]
        assert not bad, "each start of a task reads it again: " + "; ".join(map(str, bad))

    def test_dag_files_import_only_airflow_plugins_and_the_configuration(self) -> None:
        bad = [i for i in imports("dags") if i.at_top and not i.is_of("airflow", "mlops", "azure_ml", "ml.config")]
        assert not bad, "; ".join(map(str, bad))

    def test_dag_files_import_one_provider_family_each(self) -> None:
        for file in sources("dags"):
            of_file = [i.module for i in imports("dags") if i.file == file and i.is_of("airflow.providers")]
            assert len({module.split(".")[2] for module in of_file}) <= 1, file

    def test_the_configuration_reads_quickly(self) -> None:
        """Every Dag file reads it."""
        read = [i for i in imports("src/ml") if i.file.name.startswith("config") and i.at_top]
        assert all(i.is_of("ml.config.gate", "ml.config.train", "ml.config.types") for i in read if i.is_of("ml"))
        tops = {i.module.split(".")[0] for i in read if not i.is_of("ml")}
        assert tops <= {
            "__future__",
            "re",
            "collections",
            "functools",
            "importlib",
            "pathlib",
            "typing",
            "zoneinfo",
            "yaml",
            "pydantic",
        }


def calls(*folders: str) -> Iterator[tuple[Path, ast.Call, str]]:
    """Every call, with what is called as it is written."""
    for file in sources(*folders):
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.Call):
                yield file, node, ast.unparse(node.func)


def places(found: list[tuple[Path, int]]) -> str:
    return ", ".join(f"{file.relative_to(ROOT)}:{line}" for file, line in found)


class TestWhatNoFileDoes:
    @pytest.mark.parametrize("keyword", ["verify", "verify_ssl", "connection_verify", "ssl", "check_hostname"])
    def test_certificates_are_always_checked(self, keyword: str) -> None:
        bad = [
            (file, call.lineno)
            for file, call, _ in calls(*OURS, "tests")
            for given in call.keywords
            if given.arg == keyword and isinstance(given.value, ast.Constant) and given.value.value is False
        ]
        assert not bad, f"trust the private authority instead of {keyword}=False: {places(bad)}"

    def test_the_day_is_the_partition_s_and_never_the_clock_s(self) -> None:
        asks = ("date.today", "datetime.today", "datetime.now", "datetime.utcnow", "pendulum.now", "timezone.utcnow")
        bad = [
            (file, call.lineno)
            for file, call, name in calls("dags", "plugins", "src")
            if name in asks and (file.name, _function_at(file, call.lineno)) not in CLOCK_READERS
        ]
        assert not bad, f"a backfilled day must give what it gave: {places(bad)}"

    def test_no_file_reads_variables_of_airflow(self) -> None:
        bad = [i for i in imports("dags", "plugins") if i.module.endswith(".Variable")]
        assert not bad, "settings are in config/: " + "; ".join(map(str, bad))

    @pytest.mark.parametrize("word", ["TODO", "FIXME", "XXX", "HACK"])
    def test_nothing_is_left_to_be_done(self, word: str) -> None:
        me = Path(__file__)
        bad = [
            file
            for file in sources(*OURS, "tests")
            if file != me and re.search(rf"#.*\b{word}\b", file.read_text("utf-8"))
        ]
        assert not bad, bad


# Who may ask the clock, because what it is for is the moment itself and not a day's data.
CLOCK_READERS = {
    ("answers.py", "_seconds"),  # how long until the time that a service names
    ("data_factory.py", "_window"),  # how far back the service keeps runs
    ("remote_operators.py", "go_on"),  # until when a pause lasts
    ("leases.py", "hold"),  # since when somebody writes, for whoever waits
    ("journal.py", "write"),  # when a day was built
    ("received.py", "_newest_day"),  # a day that has not begun cannot have happened
    ("audit.py", "record"),  # when something was decided
    ("production.py", "claim"),  # when something went into production
    ("approval.py", "execute_complete"),  # when nobody had answered
}


def _function_at(file: Path, line: int) -> str:
    """The innermost function around a line."""
    around = [
        node
        for node in ast.walk(tree(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    return max(around, key=lambda node: node.lineno).name if around else ""


@pytest.mark.parametrize(
    ("source", "at_top"),
    [
        pytest.param("import pandas", True, id="at-the-top"),
        pytest.param("if TYPE_CHECKING:\n    import pandas", False, id="for-type-checkers"),
        pytest.param("if TYPE_CHECKING:\n    pass\nelse:\n    import pandas", True, id="for-all-but-type-checkers"),
        pytest.param("def f():\n    import pandas", False, id="in-a-function"),
        pytest.param("class C:\n    import pandas", True, id="in-a-class"),
        pytest.param("try:\n    import pandas\nexcept ImportError:\n    pass", True, id="in-a-try"),
    ],
)
def test_the_check_for_imports_sees(source: str, at_top: bool) -> None:
    assert [top for node, top in nodes(ast.parse(source)) if isinstance(node, ast.Import)] == [at_top]


def test_every_check_has_something_to_look_at() -> None:
    assert all(sources(folder) for folder in (*OURS, "tests"))
    assert any(i.is_of("airflow") for i in imports("dags"))
    assert any(i.is_of("ml.config") for i in imports("plugins"))
