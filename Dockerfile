# Airflow's image, for `astro deploy`, `astro dev start` and docker-compose.yaml. It is Astro Runtime 3.3-8 = Airflow
# 3.3.2, with the oldest Python that this Runtime offers: the closest to the version that the tests run on. This variant of
# Runtime installs packages.txt and requirements.txt and copies the project by itself (ONBUILD), so no step here does it.
FROM astrocrpublic.azurecr.io/runtime:3.3-8-python-3.12

# `ml` is imported from the copied src/, so it reads the same config/ and include/ as the Dags. Airflow itself adds plugins/.
ENV PYTHONPATH=/usr/local/airflow/src
