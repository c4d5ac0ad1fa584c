"""The parts of FLAML that AutoML jobs use, imported with pyspark hidden.

FLAML's import fails when it finds only pyspark's client without the server. So pyspark is hidden during the import.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

_HIDDEN = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "pyspark"}
for _name in _HIDDEN:
    del sys.modules[_name]
sys.modules["pyspark"] = None  # type: ignore[assignment]
try:
    flaml_models: Any = importlib.import_module("flaml.automl.model")
    task_factory: Any = importlib.import_module("flaml.automl.task.factory").task_factory
    CFO: Any = importlib.import_module("flaml.tune.searcher.blendsearch").CFO
finally:
    del sys.modules["pyspark"]
    sys.modules |= _HIDDEN
