"""What Airflow's providers do not cover: run keys, remote runs, the landing queue."""

import logging

# The SDKs log each request with all its headers, which hides the task's own messages. Airflow's own setting for it,
# `[logging] namespace_levels`, applies only to Airflow's loggers (3.3.2).
logging.getLogger("azure").setLevel(logging.WARNING)
