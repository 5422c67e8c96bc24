import subprocess
import sys

import pytest

PROGRAM = """
import atexit, time, warnings
warnings.simplefilter("ignore")  # of JAX, about the fork
from joblib import parallel_config
from sklearn.datasets import load_wine
from sklearn.model_selection import cross_val_score
from morphax.estimators import ReservoirClassifier
X, y = load_wine(return_X_y=True)
reservoir = ReservoirClassifier("relu", 10, arrangement="held", random_state=0)
if COMPUTED == "fitted":
    reservoir.fit(X, y)
elif COMPUTED:
    import jax.numpy as jnp
    jnp.ones(3) + 1
begun = time.monotonic()
atexit.register(lambda: print("seconds", time.monotonic() - begun))
with parallel_config("multiprocessing", n_jobs=2):
    print(cross_val_score(reservoir, X, y, error_score="raise").mean())
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="there is no fork on this system")
@pytest.mark.parametrize("computed", [pytest.param("fitted", marks=pytest.mark.slow), "elsewhere"])
def test_a_fork_of_a_process_that_computed_is_refused_and_not_waited_for(computed):
    done = subprocess.run(
        [sys.executable, "-c", f"COMPUTED = {computed!r}\n{PROGRAM}"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert 'use joblib\'s backend "loky"' in done.stderr
    assert float(done.stdout.split()[-1]) < 5


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="there is no fork on this system")
def test_a_fork_of_a_process_that_did_not_compute_computes():
    done = subprocess.run(
        [sys.executable, "-c", f"COMPUTED = ''\n{PROGRAM}"], capture_output=True, text=True, timeout=120
    )
    assert float(done.stdout.split()[0]) > 0.8, done.stderr
