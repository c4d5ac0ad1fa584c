"""Files of new sources, feature tables and models, from templates or from existing ones."""

from ml.check.scaffold.write import KINDS, scaffold

__all__ = ["KINDS", "scaffold"]
