"""What an image needs of this repository is in it: every import resolves among the files that the image copies."""

from __future__ import annotations

import ast
import fnmatch
import importlib
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
OURS = ("ml", "mlops", "azure_ml", "remote", "standins", "local")


def repository_files() -> list[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    return [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


def airflow_image() -> list[str]:
    """The files of Airflow's image: Astro Runtime copies everything that `.dockerignore` does not exclude."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]

    def is_left_out(name: str) -> bool:
        path = PurePosixPath(name)
        parents = [str(path), *map(str, path.parents)]
        return any(fnmatch.fnmatch(parent, pattern) for parent in parents for pattern in patterns)

    return [name for name in repository_files() if not is_left_out(name)]


def cloud_image() -> list[str]:
    """The files of the cloud's image: what its Dockerfile copies."""
    dockerfile = (ROOT / "docker" / "cloud.Dockerfile").read_text()
    copied = [source for line in re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE) for source in line.split()]
    return [name for name in repository_files() if any(name == each or name.startswith(f"{each}/") for each in copied)]


IMAGES = {"airflow": (airflow_image, ("src", "plugins", "dags")), "cloud": (cloud_image, ("src", "."))}


def has_module(files: set[str], roots: tuple[str, ...], module: str) -> bool:
    path = module.replace(".", "/")
    places = [path if root == "." else f"{root}/{path}" for root in roots]
    return any(f"{place}.py" in files or f"{place}/__init__.py" in files for place in places)


def own_imports(file: Path) -> Iterator[str]:
    """Modules of this repository that a file imports, in functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [str(node.module)]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in OURS)


@pytest.mark.parametrize("image", IMAGES)
def test_every_import_resolves_inside_the_image(image: str) -> None:
    copied, roots = IMAGES[image]
    files = set(copied())
    sources = [name for name in files if name.endswith(".py")]
    assert any(name.startswith("src/ml/stages/") for name in sources)
    missing = {
        f"{s}: {module}" for s in sources for module in own_imports(ROOT / s) if not has_module(files, roots, module)
    }
    assert not missing


@pytest.mark.parametrize("image", IMAGES)
def test_every_package_has_its_init_file(image: str) -> None:
    """A folder without one works in a checkout by chance, and is left out of packages by tools."""
    files = set(IMAGES[image][0]())
    folders = {str(PurePosixPath(name).parent) for name in files if name.endswith(".py")}
    packages = {folder for folder in folders if folder.split("/")[0] != "dags" and folder not in ("plugins", "src")}
    assert sorted(folder for folder in packages if f"{folder}/__init__.py" not in files) == []


def services() -> Iterator[tuple[str, dict[str, Any]]]:
    for name in ("docker-compose.yaml", "docker-compose.override.yml"):
        yield from yaml.safe_load((ROOT / name).read_text())["services"].items()


def command_words() -> Iterator[tuple[str, list[str]]]:
    """Commands and health checks of all services as words; those that are a shell's script are split."""
    for service, settings in services():
        for words in (settings.get("command"), settings.get("entrypoint"), settings.get("healthcheck", {}).get("test")):
            listed = shlex.split(words) if isinstance(words, str) else words or []
            scripts = [word for word in listed if " -c " in word or " -m " in word]
            for script in scripts:
                yield service, shlex.split(script)
            yield service, listed


def test_modules_that_compose_runs_exist() -> None:
    modules = {
        words[place + 1] for _, words in command_words() for place, word in enumerate(words[:-1]) if word == "-m"
    }
    assert {"standins", "local.provision", "ml"} <= modules
    files = set(cloud_image())
    assert [module for module in modules if not has_module(files, ("src", "."), module)] == []


def test_python_code_in_compose_files_imports_what_exists() -> None:
    code = [words[place + 1] for _, words in command_words() for place, word in enumerate(words[:-1]) if word == "-c"]
    imported = 0
    for source in code:
        if "import " not in source or "python -c" in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in OURS:
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    assert hasattr(module, alias.name) or importlib.import_module(f"{node.module}.{alias.name}")
                    imported += 1
    assert imported, "the certificates' service imports the stand-ins"


def test_the_executor_is_where_compose_says() -> None:
    path = next(
        settings["environment"]["AIRFLOW__CORE__EXECUTOR"]
        for _, settings in services()
        if "AIRFLOW__CORE__EXECUTOR" in settings.get("environment", {})
    )
    module, _, name = path.rpartition(".")
    assert has_module(set(airflow_image()), ("plugins",), module)
    assert f"class {name}" in (ROOT / "plugins" / f"{module.replace('.', '/')}.py").read_text()
