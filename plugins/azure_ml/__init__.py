"""Azure ML for Airflow 3: hook, operator, trigger. Written so that it can become a provider package."""
