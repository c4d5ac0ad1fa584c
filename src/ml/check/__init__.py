"""Checks all config files, queries and expectations against each other, without data: every query runs on generated rows."""

from ml.check.project import Checked, check_project

__all__ = ["Checked", "check_project"]
