"""Who may import whom. The tables here are the architecture; the tests hold the source to them."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter

import pytest

from tests.support.source_tree import (
    SOURCE_FOLDERS,
    Import,
    imports,
    imports_of_file,
    modules,
    nodes,
    source_files,
)

HEAVY = (
    "azure.ai.ml", "azure.mgmt", "deltalake", "duckdb", "great_expectations", "lightgbm", "matplotlib", "mlflow",
    "pandas", "pyarrow", "sklearn",
)  # fmt: skip

# Each package, and the packages that it may import. A package stands below those that it imports.
LIGHT = ("__future__", "typing", "json")  # of the standard library: what Dag files use of it
ANYBODY = {"errors", "resources", "console", "pages"}  # of src/ml: imported by all, importing nothing but one another
ML = {
    "config": {},
    "graph": {"config"},
    "storage": {},
    "engine": {"storage"},
    "datasets": {},
    "landing": {"storage"},
    "ops": {"storage"},
    "days": {"config", "graph", "storage", "landing", "ops"},
    "ingest": {"config", "storage", "engine", "landing", "ops"},
    "models": {"storage"},
    "features": {"config", "graph", "storage", "engine", "ops", "days", "models"},
    "registry": {"config", "graph", "storage", "ops", "models", "features"},
    "gate": {"config"},
    "validate": {"config", "storage", "engine", "landing", "ops", "ingest", "features", "models"},
    "train": {"config", "storage", "engine", "ops", "features", "models"},
    "evaluate": {"config", "storage", "engine", "models", "features", "registry", "gate", "train"},
    "promote": {"config", "ops", "registry", "gate", "evaluate"},
    "score": {"config", "graph", "storage", "engine", "ops", "days", "models", "features", "registry"},
    "monitor": {"config", "graph", "storage", "engine", "ops", "days", "models", "features", "registry"},
    "check": {"config", "graph", "engine", "features", "validate"},
    "migration": {"config", "graph", "storage", "engine", "ops", "days"},
}
STANDINS = {
    "core": {},
    "faults": {"core"},
    "compute": {"core"},
    "arm": {"core"},
    "entra": {"core", "faults", "arm"},
    "event_grid": {"core", "faults", "arm"},
    "power_bi": {"core", "faults", "arm"},
    "databricks": {"core", "faults", "compute", "arm"},
    "data_factory": {"core", "faults", "compute", "arm"},
    "azure_ml": {"core", "faults", "compute", "arm"},
    "server": {
        "core", "faults", "compute", "arm", "entra", "event_grid", "power_bi", "databricks", "data_factory", "azure_ml",
    },
}  # fmt: skip
MLOPS = {  # of plugins/mlops; `remote` and `azure_ml` are packages of their own
    "partitions": {},
    "executor": {},
    "services": {"partitions"},
    "scheduling": {"partitions", "services"},
    "tasks": {"partitions", "services", "scheduling"},
    # former paths of classes, importable for one release (docs/upgrading.md)
    "data_factory": {"services"},
    "databricks": {"services"},
    "power_bi": {"services"},
    "storage_queue": {"services"},
    "local_executor": {"executor"},
}


def misplaced(prefix: str, root: str, table: dict[str, set[str]], anybody: set[str] = frozenset()) -> list[str]:
    """Imports between the packages below `prefix` that the table does not allow; those in functions count too."""
    wrong = []
    for name, file in modules(root).items():
        if not name.startswith(f"{prefix}."):
            continue
        package = name.removeprefix(f"{prefix}.").split(".")[0]
        for each in imports_of_file(file):
            if not each.is_of(prefix) or each.name == prefix:
                continue
            other = each.name.removeprefix(f"{prefix}.").split(".")[0]
            allowed = anybody if package in anybody else {package, *table.get(package, set()), *anybody}
            if other not in allowed:
                wrong.append(str(each))
    return wrong


def circles(root: str, prefix: str) -> list[str]:
    """Modules that import one another, directly or around several corners; imports in functions count too."""
    known = {name: file for name, file in modules(root).items() if name.startswith(prefix)}
    graph = {}
    for name, file in known.items():
        targets = {each.name if each.name in known else each.name.rpartition(".")[0] for each in imports_of_file(file)}
        graph[name] = {target for target in targets if target in known and target != name}
    sorter = TopologicalSorter(graph)
    try:
        sorter.prepare()
    except ValueError as error:
        return list(error.args[1])
    return []


def complain(rule: str, wrong: list[Import] | list[str]) -> None:
    assert not wrong, f"{rule}: " + "; ".join(map(str, wrong))


class TestPackages:
    """Stages are doors: `ml/stages/` may import every package of `ml`, and only `ml/cli.py` imports stages."""

    def test_a_package_of_ml_imports_only_those_that_its_row_names(self) -> None:
        doors = {"stages": {*ML}, "cli": {"stages", "config"}, "__main__": {"cli"}}
        complain("not in the table", misplaced("ml", "src", {**ML, **doors}, ANYBODY))

    def test_a_package_of_the_stand_ins_imports_only_those_that_its_row_names(self) -> None:
        process = {"__main__": {"core", "faults", "server"}}
        complain("not in the table", misplaced("standins", ".", {**STANDINS, **process}))

    def test_a_package_of_mlops_imports_only_those_that_its_row_names(self) -> None:
        complain("not in the table", misplaced("mlops", "plugins", MLOPS))

    def test_remote_knows_no_service_and_azure_ml_knows_only_remote(self) -> None:
        wrong = [each for each in imports("plugins/remote") if each.is_of("mlops", "azure_ml", "ml")]
        wrong += [each for each in imports("plugins/azure_ml") if each.is_of("mlops", "ml")]
        complain("each could be a package of its own", wrong)

    @pytest.mark.parametrize(
        ("table", "folder"), [(ML, "src/ml"), (STANDINS, "standins"), (MLOPS, "plugins/mlops")], ids=["ml", "standins", "mlops"]
    )  # fmt: skip
    def test_the_table_names_every_package_once_and_below_what_it_imports(
        self, table: dict[str, set[str]], folder: str
    ) -> None:
        above: set[str] = set()
        for package, allowed in table.items():
            assert set(allowed) <= above, f"{package} may import {sorted(set(allowed) - above)}, which stand below it"
            above.add(package)
        packages = {
            file.parent.name for file in source_files(folder) if file.parent.parent.name == folder.split("/")[-1]
        }
        assert packages - {"stages"} <= set(table), f"not in the table: {packages - set(table)}"

    @pytest.mark.parametrize(("root", "prefix"), [("src", "ml"), (".", "standins"), ("plugins", "")], ids=["ml", "standins", "plugins"])  # fmt: skip
    def test_no_modules_import_one_another(self, root: str, prefix: str) -> None:
        complain("an import circle", circles(root, prefix))

    @pytest.mark.parametrize("folder", ["src/ml", "standins", "plugins", "tests"])
    def test_folders_and_files_stay_small_enough_to_survey(self, folder: str) -> None:
        sizes: dict[str, int] = {}
        for file in source_files(folder):
            if file.name != "__init__.py":
                sizes[str(file.parent)] = sizes.get(str(file.parent), 0) + 1
        complain("more than two dozen files in one folder", [name for name, count in sizes.items() if count > 24])


class TestBorders:
    def test_ml_knows_nothing_of_airflow_nor_of_where_it_runs(self) -> None:
        outside = ("airflow", "mlops", "azure_ml", "remote", "local", "standins", "tests")
        complain("src/ml runs without Airflow, on any machine", [i for i in imports("src/ml") if i.is_of(*outside)])

    @pytest.mark.parametrize("folder", ["dags", "plugins", "src", "local"])
    def test_nobody_knows_the_stand_ins(self, folder: str) -> None:
        wrong = [i for i in imports(folder) if i.is_of("standins")]
        complain("Connections and the environment decide which cloud answers", wrong)

    def test_the_stand_ins_know_nothing_of_the_project(self) -> None:
        project = ("ml", "mlops", "azure_ml", "remote", "local", "airflow", "tests")
        complain("a stand-in must not know its user", [i for i in imports("standins") if i.is_of(*project)])

    def test_plugins_know_the_configuration_and_nothing_else_of_ml(self) -> None:
        wrong = [i for i in imports("plugins") if i.is_of("ml") and not i.is_of("ml.config")]
        wrong += [i for i in imports("plugins") if i.is_of("local", "tests")]
        complain("HOW is in plugins, WHAT is in src/ml", wrong)

    @pytest.mark.parametrize("folder", ["dags", "plugins"])
    def test_what_airflow_reads_imports_nothing_heavy_at_the_top(self, folder: str) -> None:
        complain("each start of a task reads it again", [i for i in imports(folder) if i.at_top and i.is_of(*HEAVY)])

    def test_dag_files_import_only_airflow_plugins_and_the_configuration(self) -> None:
        wrong = [
            i
            for i in imports("dags")
            if i.at_top and not i.is_of("airflow", "mlops", "azure_ml", "remote", "ml.config", *LIGHT)
        ]
        complain("at the top of a Dag file", wrong)

    def test_dag_files_import_one_provider_family_each(self) -> None:
        for file in source_files("dags"):
            names = [i.name for i in imports_of_file(file) if i.is_of("airflow.providers")]
            assert len({name.split(".")[2] for name in names}) <= 1, file

    def test_the_configuration_reads_quickly(self) -> None:
        """Every Dag file reads it, each time a task starts."""
        at_top = [i for i in imports("src/ml/config") if i.at_top]
        assert all(i.is_of("ml.config", "ml.resources") for i in at_top if i.is_of("ml"))
        light = {
            "__future__", "re", "collections", "dataclasses", "difflib", "functools", "importlib", "logging", "pathlib", "types",
            "typing", "zoneinfo", "yaml", "pydantic",
        }  # fmt: skip
        assert {i.name.split(".")[0] for i in at_top if not i.is_of("ml")} <= light

    def test_tests_import_no_test_and_no_conftest(self) -> None:
        tests = {
            f"tests.{name}"
            for name, file in modules("tests").items()
            if file.name.startswith("test_") or file.name == "conftest.py"
        }
        complain("helpers are in tests/support", [i for i in imports("tests") if i.is_of(*tests)])


class TestTheChecks:
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
    def test_they_see_where_an_import_is(self, source: str, at_top: bool) -> None:
        assert [top for node, top in nodes(ast.parse(source)) if isinstance(node, ast.Import)] == [at_top]

    def test_each_has_something_to_look_at(self) -> None:
        assert all(source_files(folder) for folder in (*SOURCE_FOLDERS, "tests"))
        assert any(i.is_of("airflow") for i in imports("dags"))
        assert any(i.is_of("ml.config") for i in imports("plugins"))
        assert "ml.stages.score" in modules("src")

    def test_they_find_an_import_that_the_table_lacks(self) -> None:
        without = {**ML, "score": {"config"}}
        assert any("ml/score/" in line for line in misplaced("ml", "src", without, ANYBODY))
