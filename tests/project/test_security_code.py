"""The code itself, read: nothing that somebody else may write becomes a shell's words, SQL's text or a program.

Each exception stands here by file and function with its reason; one that is no longer there fails too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("src", "plugins", "dags", "local", "standins")

# What takes a text as SQL or as a filter in a language of its own, by the name of the function called.
SQL = {
    "execute",
    "executemany",
    "executescript",
    "sql",
    "mogrify",
    "copy_expert",
    "search_runs",
    "search_model_versions",
}
SQL_STATEMENT = re.compile(
    r"\b(SELECT\s.+\sFROM|INSERT\s+INTO|DELETE\s+FROM|UPDATE\s.+\sSET|MERGE\s+INTO|DROP\s+TABLE|WHERE)\b", re.S
)
SQL_PREDICATES = {"replace": 2, "delete": 0, "merge": 1}  # of lake and Delta tables: which argument is a predicate
SHELLS = {"system", "popen", "getoutput", "getstatusoutput", "create_subprocess_shell"}
PROGRAMS = {
    "Popen",
    "run",
    "call",
    "check_call",
    "check_output",
    "create_subprocess_exec",
    "posix_spawn",
    "execv",
    "execve",
}
UNPACKS = {
    "pickle": {"load", "loads", "Unpickler"}, "cloudpickle": {"load", "loads"}, "dill": {"load", "loads"},
    "joblib": {"load"}, "marshal": {"load", "loads"}, "shelve": {"open"}, "pd": {"read_pickle"}, "torch": {"load"},
    "skops": {"load"}, "pyfunc": {"load_model"}, "sklearn": {"load_model"},
}  # fmt: skip

STATED_SQL = {
    ("standins/core/ledger.py", "entries"): "the column names are a constant of the file",
    ("src/ml/engine/digest.py", "digest_sql"): "only names of columns and tables, which are quoted; no value",
    ("src/ml/check/feature_tables.py", "_has_keys"): "a message, which shows what to write into a query",
}
MADE_SQL = {
    (
        "src/ml/registry/model_versions.py",
        "find_by_run_key",
    ): "the model's name is [a-z0-9_], and quotes in a run key are refused",
    ("src/ml/registry/model_versions.py", "list_versions"): "the model's name is [a-z0-9_]",
    ("src/ml/registry/model_versions.py", "training_run"): "`find_by_run_key` has refused quotes in the run key before",
    ("standins/core/ledger.py", "entries"): "the column names are a constant of the file",
}
SHELL = {
    ("standins/compute/worker.py", "do_work"): "the shell command of an Azure ML job, as the service runs it; "
    "what Dags put into theirs is tested in tests/dags/test_dag_params.py",
}
LOADERS = {
    ("src/ml/config/load.py", "read_file"): "a SafeLoader that refuses repeated keys",
    ("standins/compute/worker.py", "_run_python"): "running the caller's file or module is what a cluster is for",
}


@dataclass(frozen=True)
class Found:
    file: str
    function: str
    line: int
    text: str

    @property
    def place(self) -> tuple[str, str]:
        return self.file, self.function


def nodes() -> Iterator[tuple[str, str, ast.AST]]:
    """Every node of the code, with its file and the innermost function it stands in."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "node_modules" not in path.parts:
                yield from _within(path.relative_to(ROOT).as_posix(), "", ast.parse(path.read_text()))


def _within(file: str, function: str, node: ast.AST) -> Iterator[tuple[str, str, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        inside = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
        yield file, inside, child
        yield from _within(file, inside, child)


def name_of(call: ast.Call) -> tuple[str, str]:
    """`a.b.c(…)` → ("b", "c"); `c(…)` → ("", "c")."""
    called = call.func
    if isinstance(called, ast.Attribute):
        value = called.value
        return (value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", "")), called.attr
    return "", getattr(called, "id", "")


def is_made(node: ast.AST) -> bool:
    """Whether a text is put together where it stands, from more than constants."""
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(part, ast.FormattedValue) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
        return not all(isinstance(one, ast.Constant) for one in (node.left, node.right)) and any(
            isinstance(one, ast.Constant | ast.JoinedStr) or is_made(one) for one in (node.left, node.right)
        )
    if not isinstance(node, ast.Call):
        return False
    of = node.func.value if isinstance(node.func, ast.Attribute) else None
    if name_of(node)[1] == "format" and isinstance(of, ast.Call) and name_of(of) == ("sql", "SQL"):
        return is_made(of.args[0])  # psycopg's own composition quotes what is put in
    return name_of(node)[1] in ("format", "format_map", "join", "replace")


def found(matches: Callable[[ast.AST], bool]) -> list[Found]:
    return [
        Found(file, function, getattr(node, "lineno", 0), ast.unparse(node)[:160])
        for file, function, node in nodes()
        if matches(node)
    ]


def says_sql(node: ast.AST) -> bool:
    """A statement made from values, wherever it is asked later."""
    fixed = (part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str))
    return is_made(node) and SQL_STATEMENT.search(" ".join(fixed)) is not None


def asks_sql(call: ast.AST) -> bool:
    """A text made where it is given to what reads it as SQL."""
    if not isinstance(call, ast.Call):
        return False
    of, name = name_of(call)
    if (of, name) == ("sql", "SQL"):
        return is_made(call.args[0])
    if name in SQL:
        return any(is_made(argument) for argument in [*call.args, *(word.value for word in call.keywords)])
    if name in SQL_PREDICATES and of in ("lake", "table", "opened", "delta"):
        place = SQL_PREDICATES[name]
        return len(call.args) > place and is_made(call.args[place])
    return False


def calls_a_shell(call: ast.AST) -> bool:
    if not isinstance(call, ast.Call):
        return False
    of, name = name_of(call)
    if any(
        word.arg == "shell" and not (isinstance(word.value, ast.Constant) and not word.value.value)
        for word in call.keywords
    ):
        return True
    if name in SHELLS and of in ("os", "subprocess", "asyncio"):
        return True
    if name in PROGRAMS:
        for argument in ast.walk(call):
            words = argument.elts if isinstance(argument, ast.List | ast.Tuple) else []
            said = [getattr(word, "value", None) for word in words]
            if said and said[0] in ("sh", "bash", "/bin/sh", "/bin/bash", "dash", "zsh") and "-c" in said:
                return not isinstance(words[said.index("-c") + 1], ast.Constant)
    return False


def loads_programs(call: ast.AST) -> bool:
    if not isinstance(call, ast.Call):
        return False
    of, name = name_of(call)
    if of == "" and name in ("eval", "exec", "compile", "__import__"):
        return True
    if of == "yaml" and name in ("load", "load_all", "unsafe_load", "full_load"):
        return True
    if of == "runpy":
        return True
    return name in UNPACKS.get(of, ())


@pytest.mark.parametrize(
    ("matches", "allowed", "instead"),
    [
        pytest.param(says_sql, STATED_SQL, "give values as parameters", id="sql-statements-from-values"),
        pytest.param(asks_sql, MADE_SQL, "give values as parameters", id="sql-text-from-values"),
        pytest.param(calls_a_shell, SHELL, "give a list of words to a program", id="shell-lines-from-values"),
        pytest.param(loads_programs, LOADERS, "use a format that carries data only", id="data-that-is-a-program"),
    ],
)
def test_the_code_has_none_but_those_with_a_reason(
    matches: Callable[[ast.AST], bool], allowed: dict[tuple[str, str], str], instead: str
) -> None:
    places = found(matches)
    new = [f"{one.file}:{one.line} in {one.function}: {one.text}" for one in places if one.place not in allowed]
    assert new == [], f"{instead}, or add the place with its reason to this test"
    assert {place for place in allowed if place not in {one.place for one in places}} == set(), "no longer needed"


@pytest.mark.parametrize(
    ("code", "matches"),
    [
        pytest.param("f'SELECT * FROM {table}'", says_sql, id="statement-as-f-string"),
        pytest.param("'DELETE FROM t WHERE d = %s' % day", says_sql, id="statement-with-percent"),
        pytest.param("'SELECT a FROM t WHERE d = ' + day", says_sql, id="statement-as-sum"),
        pytest.param("'SELECT a FROM {}'.format(t)", says_sql, id="statement-with-format"),
        pytest.param("c.execute(f'SELECT {x}')", asks_sql, id="f-string"),
        pytest.param("c.execute('SELECT ' + x)", asks_sql, id="sum"),
        pytest.param("c.execute('SELECT %s' % x)", asks_sql, id="percent"),
        pytest.param("c.execute('SELECT {}'.format(x))", asks_sql, id="format"),
        pytest.param("duckdb.sql(query=f'SELECT {x}')", asks_sql, id="keyword"),
        pytest.param("lake.replace(name, rows, f'day = {x}')", asks_sql, id="predicate"),
        pytest.param("subprocess.run(line, shell=True)", calls_a_shell, id="shell"),
        pytest.param("subprocess.run(['bash', '-c', line])", calls_a_shell, id="bash-c"),
        pytest.param("os.system(line)", calls_a_shell, id="system"),
        pytest.param("pickle.loads(content)", loads_programs, id="pickle"),
        pytest.param("mlflow.pyfunc.load_model(uri)", loads_programs, id="mlflow-model-of-any-kind"),
        pytest.param("yaml.load(text)", loads_programs, id="yaml"),
    ],
)
def test_the_walk_sees(code: str, matches: Callable[[ast.AST], bool]) -> None:
    assert matches(ast.parse(code, mode="eval").body)


@pytest.mark.parametrize("code", ["'SELECT a FROM t'", "f'where is {it}?'"], ids=["nothing-put-in", "a-sentence"])
def test_the_walk_leaves_alone(code: str) -> None:
    assert not says_sql(ast.parse(code, mode="eval").body)
