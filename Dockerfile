# Airflow's image, for `astro deploy`, `astro dev start` and docker-compose.yaml. It is Astro Runtime 3.3-8 = Airflow
# 3.3.2, with the oldest Python that this Runtime offers: the one next to what the tests run on. This variant of
# Runtime installs packages.txt and requirements.txt and copies the project by itself (ONBUILD), which is why no step here does.
FROM astrocrpublic.azurecr.io/runtime:3.3-8-python-3.12

# `ml` as it stands in the image: its config/ and include/ are the ones the Dags read.
ENV PYTHONPATH=/usr/local/airflow/src
