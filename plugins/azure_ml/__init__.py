"""Azure ML for Airflow 3: hook, operators, trigger. Written so that it can become a provider package."""
