"""The project's own source, read as syntax trees: what the tests of the architecture look at."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE_FOLDERS = ("dags", "plugins", "src", "standins", "local")


@dataclass(frozen=True)
class Import:
    """One import: where it is, the full name that it brings, and whether it runs when the file is read."""

    file: Path
    line: int
    name: str
    at_top: bool

    def is_of(self, *packages: str) -> bool:
        return any(self.name == package or self.name.startswith(f"{package}.") for package in packages)

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.name}"


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def source_files(*folders: str) -> list[Path]:
    """Every Python file below these folders of the repository; at least one."""
    files = [
        file for folder in folders for file in sorted((ROOT / folder).rglob("*.py")) if "node_modules" not in file.parts
    ]
    assert files, f"no Python file in {folders}"
    return files


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


def imports_of_file(file: Path) -> list[Import]:
    imports = []
    for node, at_top in nodes(tree(file)):
        if isinstance(node, ast.Import):
            imports += [Import(file, node.lineno, alias.name, at_top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative imports hide who imports whom"
            imports += [Import(file, node.lineno, f"{node.module}.{alias.name}", at_top) for alias in node.names]
    return imports


def imports(*folders: str) -> list[Import]:
    return [each for file in source_files(*folders) for each in imports_of_file(file)]


def calls(*folders: str) -> Iterator[tuple[Path, ast.Call, str]]:
    """Every call, with the text of what is called."""
    for file in source_files(*folders):
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.Call):
                yield file, node, ast.unparse(node.func)


def function_at(file: Path, line: int) -> str:
    """The name of the innermost function around a line; "" outside functions."""
    around = [
        node
        for node in ast.walk(tree(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    return max(around, key=lambda node: node.lineno).name if around else ""


def modules(root: str) -> dict[str, Path]:
    """Every module below an import root such as `src`, by its dotted name."""
    found = {}
    for file in source_files(root):
        parts = list(file.relative_to(ROOT / root).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found
