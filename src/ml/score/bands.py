"""Score bands: names for ranges of probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ml.config.sections import Band

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def band_codes(scores: NDArray[np.float64], bands: Sequence[Band]) -> NDArray[np.intp]:
    """The index in `bands` of each score; a score at a band's lower bound is in that band.

    `bands` are ordered by falling lower bound, the last one 0.
    """
    import numpy as np

    floors = np.array([band.at_least for band in bands])
    return (len(bands) - np.searchsorted(floors[::-1], scores, side="right")).astype(np.intp)
