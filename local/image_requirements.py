"""requirements.txt of the Airflow image, from uv.lock: `python -m local.image_requirements > requirements.txt`.

The image is Astro Runtime, which brings Airflow and refuses a requirements.txt that names it. So the file has what
`ml[airflow]` needs at the versions of the lock, for the image's Python, less everything that Airflow itself brings:
that is the image's to choose. A test holds the file in step with the lock and the Dockerfile.
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
    """The Python version of the base image, from its tag. Raises ValueError when the tag does not tell."""
    found = IMAGE.search(dockerfile)
    if found is None:
        raise ValueError(f"Dockerfile: found no line such as {IMAGE.pattern}")
    return found[1]


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
    found: dict[str, Package] = {}
    seen: set[tuple[str, str]] = set()
    todo = list(roots)
    while todo:
        wanted = todo.pop()
        package = _choose(by_name[wanted["name"]], wanted)
        found[package["name"]] = package
        for extra in ("", *wanted.get("extra", ())):
            if (package["name"], extra) not in seen:
                seen.add((package["name"], extra))
                needed = package.get("optional-dependencies", {}).get(extra, []) if extra else _plain(package)
                todo += [one for one in needed if _applies(one, machine)]
    return found


def _plain(package: Package) -> Iterable[Package]:
    needed: list[Package] = package.get("dependencies", [])
    return needed


def _choose(candidates: list[Package], wanted: Package) -> Package:
    """The lock names the version where it holds several of one package."""
    chosen = [one for one in candidates if one["version"] == wanted.get("version", one["version"])]
    if len(chosen) != 1:
        raise ValueError(f"uv.lock: {len(chosen)} packages match {wanted}; exactly one is needed")
    return chosen[0]


def _applies(needed: Package, machine: dict[str, str]) -> bool:
    return "marker" not in needed or Marker(needed["marker"]).evaluate(machine)


def render() -> str:
    """The whole file."""
    python = image_python((REPOSITORY / "Dockerfile").read_text())
    lock = tomllib.loads((REPOSITORY / "uv.lock").read_text())
    return HEADER.format(python=python) + "\n".join(pinned(lock, python)) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
