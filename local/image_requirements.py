"""requirements.txt of the Airflow image, from uv.lock: `python -m local.image_requirements > requirements.txt`.

The image is Astro Runtime, which brings Airflow and refuses a requirements.txt that names it. So the file lists what
`ml[airflow]` needs at the versions of the lock, for the image's Python, without everything that Airflow itself brings:
the image determines those versions. A test checks the file against the lock and the Dockerfile.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from packaging.markers import Marker

REPOSITORY = Path(__file__).resolve().parent.parent
IMAGE = re.compile(r"^FROM astrocrpublic\.azurecr\.io/runtime:3\.3-\d+-python-(\d+\.\d+)$", re.MULTILINE)
HEADER = """\
# What `ml[airflow]` needs beyond what Airflow itself brings, at the versions of uv.lock, for Python {python}.
# Made by `python -m local.image_requirements > requirements.txt`: change pyproject.toml and uv.lock, not this file.
"""

Package = dict[str, Any]


def image_python(dockerfile: str) -> str:
    """The Python version of the base image, from its tag. Raises ValueError when the tag does not name it."""
    match = IMAGE.search(dockerfile)
    if match is None:
        raise ValueError(f"Dockerfile: no line matches {IMAGE.pattern}")
    return match[1]


def pinned(lock: dict[str, Any], python: str) -> list[str]:
    """`name==version`, by name: the closure of ml[airflow] without the closure of Airflow, on Linux with CPython."""
    machine = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    ours = _closure(lock, [{"name": "ml", "extra": ["airflow"]}], machine)
    airflow = _closure(lock, [{"name": "apache-airflow"}], machine)
    return [f"{name}=={ours[name]['version']}" for name in sorted(ours.keys() - airflow.keys() - {"ml"})]


def _closure(lock: dict[str, Any], roots: list[Package], machine: dict[str, str]) -> dict[str, Package]:
    """All packages that the roots need on the machine, by name."""
    by_name: dict[str, list[Package]] = {}
    for package in lock["package"]:
        by_name.setdefault(package["name"], []).append(package)
    closure: dict[str, Package] = {}
    visited: set[tuple[str, str]] = set()  # name and extra
    requirements = list(roots)
    while requirements:
        requirement = requirements.pop()
        package = _choose(by_name[requirement["name"]], requirement)
        closure[package["name"]] = package
        for extra in ("", *requirement.get("extra", ())):
            if (package["name"], extra) not in visited:
                visited.add((package["name"], extra))
                requirements += [each for each in _dependencies(package, extra) if _applies(each, machine)]
    return closure


def _dependencies(package: Package, extra: str) -> Iterable[Package]:
    """The requirements of an extra; of the package itself when `extra` is empty."""
    dependencies: list[Package] = (
        package.get("optional-dependencies", {}).get(extra, []) if extra else package.get("dependencies", [])
    )
    return dependencies


def _choose(candidates: list[Package], requirement: Package) -> Package:
    """The package that a requirement means; the lock names the version where it has several of one package."""
    matches = [
        package for package in candidates if package["version"] == requirement.get("version", package["version"])
    ]
    if len(matches) != 1:
        raise ValueError(f"uv.lock: {len(matches)} packages match {requirement}; exactly one is needed")
    return matches[0]


def _applies(requirement: Package, machine: dict[str, str]) -> bool:
    return "marker" not in requirement or Marker(requirement["marker"]).evaluate(machine)


def render() -> str:
    """The whole file."""
    python = image_python((REPOSITORY / "Dockerfile").read_text())
    lock = tomllib.loads((REPOSITORY / "uv.lock").read_text())
    return HEADER.format(python=python) + "\n".join(pinned(lock, python)) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
