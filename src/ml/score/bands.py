"""Score bands: names for ranges of probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ml.config.sections import Band

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def band_codes(scores: NDArray[np.float64], bands: Sequence[Band]) -> NDArray[np.intp]:
    """The index into `bands` (falling floors, the last one 0) of each score; a floor belongs to its band."""
    import numpy as np

    floors = np.array([band.at_least for band in bands])
    return (len(bands) - np.searchsorted(floors[::-1], scores, side="right")).astype(np.intp)
