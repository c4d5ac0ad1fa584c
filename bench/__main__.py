"""`make bench ARGS=features`: one benchmark, or all; each prints ratios to a reference measured in the same run."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

KNOWN = sorted(file.stem for file in Path(__file__).parent.glob("[!_]*.py"))

requested = sys.argv[1:] or KNOWN
if unknown := set(requested) - set(KNOWN):
    sys.exit(f"no benchmark {', '.join(sorted(unknown))}; choose from: {', '.join(KNOWN)}")
for name in requested:
    sys.argv = [name]
    runpy.run_module(f"bench.{name}", run_name="__main__")
