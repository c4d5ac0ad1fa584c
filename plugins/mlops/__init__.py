"""How Airflow reaches what its providers do not cover: run keys, remote runs, the landing queue."""
