"""A chaotic far-infrared laser, measured: data set A of the Santa Fe competition."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float

from morphax.files import digest_of_file

PACKAGE, FILE = "reservoirpy", "datasets/santafe_laser.npy"
DIGEST = "8c07281200935596f8e28bc94e1bb25e9964ab7d7f63c5e27ac87b810ac3b33a"


def santa_fe_laser() -> Float[np.ndarray, " time"]:
    """10,093 intensities from 0 to 255, at equal times, as the package reservoirpy carries them (extra `data`).

    **Raises:** `ImportError` where that package is not installed; `ValueError` where its file is another one.

    Source: U. Huebner, N. B. Abraham and C. O. Weiss, Phys. Rev. A 40, 6354 (1989); A. S. Weigend and N. A.
    Gershenfeld, "Time Series Prediction" (1994).

        >>> from morphax.tasks.laser import santa_fe_laser
        >>> santa_fe_laser()[:5].tolist()
        [86.0, 141.0, 95.0, 41.0, 22.0]
    """
    # The file alone: importing the package takes a second, and sets what others then find set.
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ImportError(f'this needs {PACKAGE}, which is not installed: pip install "morphax[data]"')
    path = Path(found.origin).parent / FILE
    if not path.is_file() or digest_of_file(path) != DIGEST:
        raise ValueError(f"{path} is not the file it should be: its SHA-256 is not {DIGEST}; install {PACKAGE} 0.4")
    return np.ravel(np.load(path, allow_pickle=False)).astype(float)
