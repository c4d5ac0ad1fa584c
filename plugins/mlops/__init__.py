"""How Airflow reaches what its providers do not cover: run keys, remote runs, the landing queue."""

import logging

# The SDKs tell each request with all its headers, which drowns what a task has to say. Airflow's own setting for it,
# `[logging] namespace_levels`, reaches only Airflow's loggers (3.3.2).
logging.getLogger("azure").setLevel(logging.WARNING)
