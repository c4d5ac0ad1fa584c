"""What no file of the project may do: the rules that keep one code path, read from the source itself."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support.source_tree import ROOT, SOURCE_FOLDERS, calls, function_at, imports, source_files

# Functions that may read the clock: what they record is the moment itself, not a day's data.
CLOCK_READERS = {
    ("plugins/remote/responses.py", "_seconds"),  # how long until the time that a service names
    ("plugins/mlops/services/data_factory.py", "_window"),  # how far back the service keeps runs
    ("plugins/remote/operators.py", "go_on"),  # until when a pause lasts
    ("src/ml/storage/leases.py", "hold"),  # since when the holder writes, for those who wait
    ("src/ml/ops/built_days.py", "write"),  # when a day was built
    ("src/ml/ops/decisions.py", "record"),  # when something was decided
    ("src/ml/ingest/triage.py", "_newest_day"),  # a day that has not begun cannot have happened
    ("src/ml/ops/production_log.py", "claim"),  # when a version went into production
    ("src/ml/ops/score_requests.py", "write"),  # when a scoring was requested
    ("src/ml/stages/days.py", "run"),  # how long a day has waited for an input
}


def places(lines: list[tuple[Path, int]]) -> str:
    return ", ".join(f"{file.relative_to(ROOT)}:{line}" for file, line in lines)


@pytest.mark.parametrize("keyword", ["verify", "verify_ssl", "connection_verify", "ssl", "check_hostname"])
def test_certificates_are_always_checked(keyword: str) -> None:
    wrong = [
        (file, call.lineno)
        for file, call, _ in calls(*SOURCE_FOLDERS, "tests")
        for argument in call.keywords
        if argument.arg == keyword and isinstance(argument.value, ast.Constant) and argument.value.value is False
    ]
    assert not wrong, f"trust the private authority instead of {keyword}=False: {places(wrong)}"


def test_the_day_comes_from_the_partition_and_never_from_the_clock() -> None:
    clocks = ("date.today", "datetime.today", "datetime.now", "datetime.utcnow", "pendulum.now", "timezone.utcnow")
    readers = {
        (file.relative_to(ROOT).as_posix(), function_at(file, call.lineno)): (file, call.lineno)
        for file, call, name in calls("dags", "plugins", "src")
        if name in clocks
    }
    wrong = [place for reader, place in readers.items() if reader not in CLOCK_READERS]
    assert not wrong, f"a backfilled day must give the same result as on the day itself: {places(wrong)}"
    assert not CLOCK_READERS - readers.keys(), f"these read no clock any more: {CLOCK_READERS - readers.keys()}"


def test_no_file_reads_variables_of_airflow() -> None:
    wrong = [i for i in imports("dags", "plugins") if i.name.endswith(".Variable")]
    assert not wrong, "settings are in config/: " + "; ".join(map(str, wrong))


def test_only_the_doors_know_the_command_lines_arguments() -> None:
    """Packages take typed, named parameters."""
    doors = {ROOT / "src/ml/cli.py", *(ROOT / "src/ml/stages").glob("*.py")}
    wrong = [
        (file, node.lineno)
        for file in source_files("src/ml")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "Namespace" and file not in doors
    ]
    wrong += [
        (file, node.lineno)
        for file in sorted(doors)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
        and node.name not in ("run", "parse")
        and "Namespace" in ast.unparse(node.args)
    ]
    assert not wrong, f"argparse.Namespace is for a stage's run(args) only: {places(wrong)}"


@pytest.mark.parametrize("word", ["TODO", "FIXME", "XXX", "HACK"])
def test_no_comment_leaves_work_to_do(word: str) -> None:
    wrong = [
        file
        for file in source_files(*SOURCE_FOLDERS, "tests")
        if file != Path(__file__) and re.search(rf"#.*\b{word}\b", file.read_text(encoding="utf-8"))
    ]
    assert not wrong, wrong


def test_no_test_patches_the_loading_of_configuration() -> None:
    """A test that needs other settings writes them to a folder of its own: `tests.support.resources`."""
    wrong = [
        (file, call.lineno)
        for file, call, name in calls("tests")
        if name.endswith("setattr") and re.search(r"resource_dir|load_models?\b|['\"]load['\"]", ast.unparse(call))
    ]
    assert not wrong, places(wrong)
