"""Which other sample each sample is given when values are exchanged between samples."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from acon_analysis.errors import AconError


def draw_donors(
    count: int, generator: np.random.Generator, classes: npt.ArrayLike | None = None
) -> npt.NDArray[np.int64]:
    """Draw another sample for each of count >= 2, so that each is drawn once: int64 (count,).

    The samples are put into one cycle at random (Sattolo 1986, Information Processing Letters 22,
    315-317, doi:10.1016/0020-0190(86)90073-6), so that none is its own donor; of samples with
    classes, into one cycle a class.
    """
    donors = np.empty(count, dtype=np.int64)
    codes, names = pd.factorize(np.zeros(count) if classes is None else np.asarray(classes))
    for code, name in enumerate(names):
        members = generator.permutation(np.flatnonzero(codes == code))
        if len(members) < 2:
            where = "" if classes is None else f" of class {name!s}"
            raise AconError(f"there is one sample{where}, so that it has no other to be given from")
        donors[members] = np.roll(members, 1)
    return donors
