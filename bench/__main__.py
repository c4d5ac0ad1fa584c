"""`make bench ARGS=features`: one measurement, or all of them; each prints ratios against a peer in the same run."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

KNOWN = sorted(file.stem for file in Path(__file__).parent.glob("[!_]*.py"))

asked = sys.argv[1:] or KNOWN
if unknown := set(asked) - set(KNOWN):
    sys.exit(f"no bench {', '.join(sorted(unknown))}; there are: {', '.join(KNOWN)}")
for name in asked:
    sys.argv = [name]
    runpy.run_module(f"bench.{name}", run_name="__main__")
