"""The whole machine on one computer: every service that the cloud would run, started from packages alone.

`python -m local up` starts PostgreSQL, Azurite, the MLflow server, the stand-ins for Azure's services and
Airflow; `down` stops every one of them and leaves no process behind. State is kept in `RUN_DIR` (`.run/`).
"""
