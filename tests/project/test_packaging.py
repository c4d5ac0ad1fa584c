"""Images and compose files agree with the lock, with the plain host and with each other. No engine is needed."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import stat
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from local import environment, image_requirements, postgres
from local.settings import SECRETS, from_environment
from standins.core.cloud import Settings as StandinSettings
from standins.server import certificates

ROOT = Path(__file__).resolve().parents[2]
AIRFLOW_SERVICES = {"api-server", "scheduler", "dag-processor", "triggerer"}
LOCK = tomllib.loads((ROOT / "uv.lock").read_text())

Service = dict[str, Any]


def compose_file(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return content


def merged() -> dict[str, Service]:
    """Services as Compose reads the two files: mappings of a service are merged, lists are joined."""
    services: dict[str, Service] = {}
    for name in ("docker-compose.yaml", "docker-compose.override.yml"):
        for service, settings in compose_file(name)["services"].items():
            before = services.setdefault(service, {})
            for key, value in settings.items():
                if isinstance(value, dict) and isinstance(before.get(key), dict):
                    before[key] = before[key] | value
                elif key in ("volumes", "ports") and key in before:
                    before[key] = before[key] + value
                else:
                    before[key] = value
    return services


SERVICES = merged()


@pytest.fixture(scope="module")
def dotenv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The .env that docker/env.sh creates, in a project folder of its own."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "docker").mkdir()
    shutil.copy(ROOT / "docker" / "env.sh", folder / "docker")
    shutil.copy(ROOT / ".env.example", folder)
    subprocess.run(["sh", "docker/env.sh"], cwd=folder, check=True, capture_output=True)
    return folder / ".env"


@pytest.fixture(scope="module")
def secrets(dotenv: Path) -> dict[str, str]:
    return {name: value or "" for name, value in dotenv_values(dotenv, interpolate=False).items()}


def variables_of(service: str, secrets: dict[str, str]) -> dict[str, str]:
    """The environment of a container, without the variables of its image."""
    settings = SERVICES[service]
    return (secrets if settings.get("env_file") == ".env" else {}) | settings.get("environment", {})


def version_of(package: str) -> str:
    return next(locked["version"] for locked in LOCK["package"] if locked["name"] == package)


# the wheel ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in the wheel, built from the sources as they are now."""
    uv = next(
        (ROOT / ".tools/uv" / place for place in ("bin/uv", "lib/bin/uv") if (ROOT / ".tools/uv" / place).exists()),
        None,
    )
    if uv is None:
        pytest.skip("no uv in .tools: local/bootstrap.sh installs it")
    folder = tmp_path_factory.mktemp("wheel")
    command = [str(uv), "build", "--wheel", "--cache-dir", str(folder / "cache"), "--out-dir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode and "Failed to fetch" in built.stderr:
        pytest.skip("no package registry from which the build could get its backend")
    assert built.returncode == 0, built.stderr
    (file,) = folder.glob("*.whl")
    return set(zipfile.ZipFile(file).namelist())


@pytest.mark.parametrize("folder", ["config", "include/sql", "include/expectations"])
def test_the_wheel_contains_every_file_that_stages_read_with_its_subfolder(wheel: set[str], folder: str) -> None:
    root = ROOT / folder
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.suffix in (".yaml", ".sql")}
    assert any("/" in name for name in files), "sources, feature tables and models have folders of their own"
    packed = f"ml/_data/{root.name}/"
    assert {name.removeprefix(packed) for name in wheel if name.startswith(packed)} == files


def test_the_wheel_contains_every_module_of_ml_and_no_other_package(wheel: set[str]) -> None:
    modules = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src/ml").rglob("*.py")}
    assert modules <= wheel
    assert {name.split("/")[0] for name in wheel if not name.split("/")[0].endswith(".dist-info")} == {"ml"}


# requirements.txt and the images ----------------------------------------------------------------------------------


def test_requirements_are_in_step_with_the_lock() -> None:
    assert (ROOT / "requirements.txt").read_text() == image_requirements.render(), (
        "uv.lock or the Dockerfile has changed: run `python -m local.image_requirements > requirements.txt`"
    )


@pytest.mark.parametrize("package", ["apache-airflow", "apache-airflow-core", "apache-airflow-task-sdk", "ml"])
def test_requirements_leave_out_what_the_image_brings(package: str) -> None:
    assert not re.search(rf"^{package}\b(?!-)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)


def test_requirements_name_every_direct_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    dependencies = [*project["dependencies"], *project["optional-dependencies"]["airflow"]]
    names = {re.split(r"[^\w-]", dependency)[0] for dependency in dependencies} - {"apache-airflow"}
    airflow_brings = {"apache-airflow-providers-standard", "pydantic", "pyyaml"}
    pinned = {line.split("==")[0] for line in (ROOT / "requirements.txt").read_text().splitlines()}
    assert names - pinned <= airflow_brings


def test_runtime_is_of_the_locked_airflow_series() -> None:
    image = re.search(r"^FROM .*runtime:(\d+\.\d+)-", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert image is not None
    assert version_of("apache-airflow").startswith(f"{image[1]}.")


def test_the_tag_of_the_base_image_must_name_its_python_version() -> None:
    with pytest.raises(ValueError, match="Dockerfile"):
        image_requirements.image_python("FROM astrocrpublic.azurecr.io/runtime:3.3-8\n")


def test_cloud_image_has_the_uv_version_of_the_plain_host() -> None:
    host = re.search(r"^UV_VERSION=(\S+)", (ROOT / "local" / "bootstrap.sh").read_text(), re.MULTILINE)
    image = re.search(r"^ARG UV_VERSION=(\S+)", (ROOT / "docker" / "cloud.Dockerfile").read_text(), re.MULTILINE)
    assert host is not None
    assert image is not None
    assert host[1] == image[1]


def test_cloud_image_has_the_python_version_that_the_tests_run_on() -> None:
    image = re.search(r"^FROM python:(\d+)\.(\d+)-", (ROOT / "docker" / "cloud.Dockerfile").read_text(), re.MULTILINE)
    assert image is not None
    lowest = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["target-version"]
    assert f"py{image[1]}{image[2]}" == lowest


def test_services_have_the_versions_of_the_plain_host() -> None:
    result = subprocess.run([postgres.binary("postgres"), "--version"], capture_output=True, text=True, check=True)
    azurite = json.loads((ROOT / "local" / "azurite" / "package-lock.json").read_text())
    for service in ("postgres", "mlflow-db"):
        assert SERVICES[service]["image"].startswith(f"postgres:{result.stdout.split()[2]}-")
    assert SERVICES["azurite"]["image"].endswith(f":{azurite['packages']['node_modules/azurite']['version']}")


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_every_image_has_a_fixed_version(service: str) -> None:
    image = SERVICES[service]["image"]
    assert ":" in image
    assert not image.endswith(":latest")


@pytest.mark.parametrize("file", ["docker/cloud.Dockerfile"])
def test_what_an_image_copies_exists_and_is_not_ignored(file: str) -> None:
    patterns = [line for line in (ROOT / f"{file}.dockerignore").read_text().splitlines() if not line.startswith("#")]
    for line in re.findall(r"^COPY (.+) \S+$", (ROOT / file).read_text(), re.MULTILINE):
        for source in line.split():
            assert (ROOT / source).exists(), f"{file} copies {source}"
            assert f"!{source}" in patterns, f"{file}.dockerignore excludes {source}"


@pytest.mark.parametrize("needed", ["dags", "plugins", "include", "config", "src", "requirements.txt", "packages.txt"])
def test_airflow_s_image_contains_what_it_runs(needed: str) -> None:
    assert not any(fnmatch.fnmatch(needed, pattern) for pattern in ignored_by_airflow())


@pytest.mark.parametrize("never", [".env", ".run", ".git", "standins", "local"])
def test_airflow_s_image_contains_no_secret_and_no_stand_in(never: str) -> None:
    assert never in ignored_by_airflow()


def ignored_by_airflow() -> list[str]:
    return [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]


# .env ---------------------------------------------------------------------------------------------------------------


def test_env_file_is_private_complete_and_created_once(dotenv: Path, secrets: dict[str, str]) -> None:
    assert stat.S_IMODE(dotenv.stat().st_mode) == 0o600
    places = re.findall(r"__[A-Z_]+__", (ROOT / ".env.example").read_text())  # a key may contain two underscores
    assert not [name for name, value in secrets.items() if not value or any(place in value for place in places)]
    before = dotenv.read_text()
    subprocess.run(["sh", "docker/env.sh"], cwd=dotenv.parent, check=True, capture_output=True)
    assert dotenv.read_text() == before


def test_secrets_have_the_form_that_their_readers_expect(secrets: dict[str, str]) -> None:
    from base64 import b64decode
    from uuid import UUID

    from cryptography.fernet import Fernet

    for name in ("STANDINS_TENANT_ID", "STANDINS_CLIENT_ID", "STANDINS_SUBSCRIPTION_ID"):
        assert UUID(secrets[name]).version == 4
    assert len(b64decode(secrets["AZURE_STORAGE_ACCOUNT_KEY"], validate=True)) == 64
    Fernet(secrets["AIRFLOW__CORE__FERNET_KEY"])
    assert re.fullmatch(r"[0-9a-f]+", secrets["POSTGRES_PASSWORD"]), "it is part of an address"
    assert re.fullmatch(r"[0-9a-f]+", secrets["AIRFLOW_ADMIN_PASSWORD"]), "a shell writes it into JSON"


def test_no_secret_is_committed(secrets: dict[str, str]) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", ".env"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not listed.stdout
    ignored = subprocess.run(["git", "check-ignore", ".env", ".env.new"], cwd=ROOT, capture_output=True, text=True)
    assert ignored.stdout.split() == [".env", ".env.new"]


def shape(value: Any) -> Any:
    """Keys and types, without the values."""
    return {key: shape(inner) for key, inner in value.items()} if isinstance(value, dict) else type(value).__name__


def test_connections_have_the_fields_of_the_plain_host_s(tmp_path: Path, secrets: dict[str, str]) -> None:
    host = environment.connections(from_environment({"RUN_DIR": str(tmp_path)}))
    prefix = "AIRFLOW_CONN_"
    containers = {n.removeprefix(prefix).lower(): json.loads(v) for n, v in secrets.items() if n.startswith(prefix)}
    assert shape(containers) == shape(host)
    for conn_id, name in (
        ("azure_data_factory_default", "resource_group_name"),
        ("azure_data_factory_default", "factory_name"),
        ("azure_ml_default", "resource_group"),
        ("azure_ml_default", "workspace"),
        ("landing_queue", "queue"),
    ):
        assert containers[conn_id]["extra"][name] == host[conn_id]["extra"][name]


def test_connections_and_stand_ins_agree(secrets: dict[str, str]) -> None:
    factory = json.loads(secrets["AIRFLOW_CONN_AZURE_DATA_FACTORY_DEFAULT"])
    assert (factory["login"], factory["password"]) == (
        secrets["STANDINS_CLIENT_ID"],
        secrets["STANDINS_CLIENT_SECRET"],
    )
    assert factory["extra"]["tenantId"] == secrets["STANDINS_TENANT_ID"]
    databricks = json.loads(secrets["AIRFLOW_CONN_DATABRICKS_DEFAULT"])
    assert databricks["password"] == secrets["STANDINS_DATABRICKS_TOKEN"]
    power_bi = json.loads(secrets["AIRFLOW_CONN_POWERBI_DEFAULT"])["extra"]
    assert power_bi["group_id"] == environment.POWERBI_GROUP == secrets["STANDINS_POWERBI_GROUP_ID"]
    assert power_bi["dataset_id"] == environment.POWERBI_DATASET == secrets["STANDINS_POWERBI_DATASET_ID"]
    assert secrets["AZURITE_ACCOUNTS"] == f"{environment.ACCOUNT}:{secrets['AZURE_STORAGE_ACCOUNT_KEY']}"
    assert secrets["AZURE_STORAGE_ACCOUNT_KEY"] in secrets["AZURE_STORAGE_CONNECTION_STRING"]


# the compose files ----------------------------------------------------------------------------------------------------

# Variables of the plain host that an image has already, or that reach the cloud's names in another way.
ONLY_ON_A_HOST = {
    "HTTPS_PROXY",  # network aliases replace the proxy
    "RUN_DIR",
    "AIRFLOW_HOME",
    "AIRFLOW__CORE__DAGS_FOLDER",
    "AIRFLOW__CORE__PLUGINS_FOLDER",
    "AIRFLOW__API__HOST",  # all of a container's interfaces; only loopback is published
    "AIRFLOW__LOGGING__BASE_LOG_FOLDER",
    "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG",
}


@pytest.mark.parametrize("service", sorted(AIRFLOW_SERVICES))
def test_airflow_has_every_variable_that_it_has_on_a_host(
    service: str, tmp_path: Path, secrets: dict[str, str]
) -> None:
    host = environment.full(from_environment({"RUN_DIR": str(tmp_path)})).keys()
    assert host - variables_of(service, secrets).keys() - ONLY_ON_A_HOST == set()


@pytest.mark.parametrize("service", ["provision", "ml"])
def test_jobs_have_the_variables_that_choose_the_cloud(service: str, tmp_path: Path, secrets: dict[str, str]) -> None:
    settings = from_environment({"RUN_DIR": str(tmp_path)})
    needed = {**environment.storage(settings), **environment.cloud(settings)}.keys()
    assert needed - variables_of(service, secrets).keys() - ONLY_ON_A_HOST == set()


def test_stand_ins_can_read_their_container_s_settings(tmp_path: Path, secrets: dict[str, str]) -> None:
    settings = StandinSettings.from_environment(tmp_path, 443, 0, variables_of("standins", secrets))
    assert settings.blob_endpoint == "http://azurite:10000/devstoreaccount1"


def test_the_container_of_the_workspace_is_provisioned() -> None:
    from local import provision
    from standins.azure_ml.data import datastores

    assert datastores.CONTAINER in provision.CONTAINERS


def test_the_cloud_s_host_names_are_aliases_of_the_stand_ins() -> None:
    assert set(SERVICES["standins"]["networks"]["airflow"]["aliases"]) == set(certificates.HOSTS)


def test_the_override_file_defines_no_service_a_second_time() -> None:
    override = compose_file("docker-compose.override.yml")["services"]
    base = compose_file("docker-compose.yaml")["services"]
    assert override.keys() & base.keys() == AIRFLOW_SERVICES
    for service in AIRFLOW_SERVICES:
        assert override[service].keys() <= {"environment", "volumes", "depends_on"}, "the Astro CLI defines the rest"


def test_the_override_file_uses_no_variable_without_a_default() -> None:
    text = (ROOT / "docker-compose.override.yml").read_text()
    assert [variable for variable in re.findall(r"(?<!\$)\$\{?\w[^}\s]*", text) if ":-" not in variable] == []


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_ports_are_published_on_loopback_only(service: str) -> None:
    assert all(str(port).startswith("127.0.0.1:") for port in SERVICES[service].get("ports", []))


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_every_wait_can_end_and_every_service_restarts_or_is_checked(service: str) -> None:
    settings = SERVICES[service]
    for other, wait in settings.get("depends_on", {}).items():
        condition = wait["condition"]
        assert condition in ("service_healthy", "service_completed_successfully")
        if condition == "service_healthy":
            assert "healthcheck" in SERVICES[other], f"{service} waits for the health of {other}"
        else:
            assert SERVICES[other]["restart"] == "no", f"{service} waits for the end of {other}"
    assert settings["restart"] in ("no", "unless-stopped")
    assert settings["restart"] == "no" or "healthcheck" in settings


def test_no_service_waits_for_itself() -> None:
    """Neither directly nor through other services."""

    def before(service: str, path: tuple[str, ...] = ()) -> Iterator[str]:
        assert service not in path, f"{' → '.join((*path, service))}"
        for other in SERVICES[service].get("depends_on", {}):
            yield other
            yield from before(other, (*path, service))

    for service in SERVICES:
        list(before(service))


def test_volumes_are_declared() -> None:
    files = [compose_file(name) for name in ("docker-compose.yaml", "docker-compose.override.yml")]
    declared = set().union(*(file["volumes"] for file in files))
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert used == declared


def test_stand_ins_accept_the_options_of_their_command() -> None:
    command = SERVICES["standins"]["command"]
    assert command[:3] == ["python", "-m", "standins"]
    result = subprocess.run([sys.executable, "-m", "standins", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert all(option in result.stdout for option in command if option.startswith("--"))


def test_every_secret_of_the_plain_host_has_a_variable(secrets: dict[str, str]) -> None:
    """A new kind of secret must be created for containers too."""
    variables = {
        "tenant_id": "STANDINS_TENANT_ID",
        "subscription_id": "STANDINS_SUBSCRIPTION_ID",
        "client_id": "STANDINS_CLIENT_ID",
        "client_secret": "STANDINS_CLIENT_SECRET",
        "databricks_token": "STANDINS_DATABRICKS_TOKEN",
        "storage_key": "AZURE_STORAGE_ACCOUNT_KEY",
        "postgres_password": "POSTGRES_PASSWORD",
        "postgres_airflow_password": "POSTGRES_PASSWORD",
        "postgres_mlflow_password": "POSTGRES_PASSWORD",
        "airflow_admin_password": "AIRFLOW_ADMIN_PASSWORD",
        "airflow_fernet_key": "AIRFLOW__CORE__FERNET_KEY",
        "airflow_jwt_secret": "AIRFLOW__API_AUTH__JWT_SECRET",
        "airflow_secret_key": "AIRFLOW__API__SECRET_KEY",
    }
    assert variables.keys() == SECRETS.keys()
    assert set(variables.values()) <= secrets.keys()
