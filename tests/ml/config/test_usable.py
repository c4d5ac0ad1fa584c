"""The config files that can be used when others are broken; `tests/dags/test_broken_config.py` has which those are."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml.config import ConfigError, load_usable_project
from tests.support.config_folder import BUSINESS, ConfigFolder, business, not_yaml


class TestTheUsableProject:
    @pytest.fixture
    def config(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ConfigFolder:
        config = ConfigFolder(tmp_path / "resources")
        monkeypatch.setenv("ML_RESOURCES", str(config.folder))
        business(config)
        return config

    def test_of_good_files_is_all_of_them(self, config: ConfigFolder) -> None:
        project, errors = load_usable_project()
        assert not errors
        found = (tuple(project.sources), tuple(project.feature_tables), tuple(project.models))
        assert found == tuple(map(tuple, map(sorted, BUSINESS.values())))

    def test_follows_a_corrected_file(self, config: ConfigFolder) -> None:
        not_yaml("models/on_a.yaml")(config)
        assert "on_a" not in load_usable_project()[0].models
        config.model("on_a", "of_a", label="a")
        assert "on_a" in load_usable_project()[0].models

    def test_names_each_problem_once(self, config: ConfigFolder) -> None:
        config.model("on_a", "of_a", label="a", score={"table": "gold.on_b_scores"})
        config.remove("sources/a.yaml")
        _, errors = load_usable_project()
        assert len(errors) == len(set(errors))

    def test_needs_the_platform(self, config: ConfigFolder) -> None:
        config.remove("platform.yaml")
        with pytest.raises(ConfigError, match=r"platform\.yaml: no such file"):
            load_usable_project()
