"""The whole machine on one computer: every service that the cloud would run, started from installed packages only.

`python -m local up` starts PostgreSQL, Azurite, the MLflow server, the stand-ins for Azure's services and
Airflow; `down` stops all of them and leaves no process behind. State is kept in `RUN_DIR` (`.run/`).
"""
