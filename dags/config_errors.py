"""Shows broken config files as an import error of this file. It has no Dag.

When a file in `config/` cannot be used, the node that it describes and what is built on it have no Dags until it is
corrected: their runs in progress wait, and `arrivals` finds afterwards what they missed. All other Dags go on, which is
why the error is shown here and not in their files: Airflow starts no run of a Dag whose file has an import error.
"""

from mlops.tasks.defaults import refuse_broken_config

refuse_broken_config()
