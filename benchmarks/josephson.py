"""Time per input point of the Josephson mixer: morphax, QuTiP and dynamiqs side by side, at the same accuracy.

    python benchmarks/josephson.py [--points 20] [--sequences 64] [--threads 1] [--keep]

The job: two modes of eight levels with the working parameters, random inputs that differ at every point, all
populations after every point, double precision. The coherent method is timed on sequences a hundred times longer,
because calling a compiled program costs more than twenty of its points. Errors are measured against a sparse matrix
exponential of the same truncated Liouvillian. The peers' settings are the fastest found that stay below 1e-8: QuTiP's
mesolve on CSR or DIA operators with the integrators of its list; dynamiqs on sparse diagonals (dense is several times
slower) with Tsit5 or Dopri8.
"""

import functools
import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import expm_multiply

from measuring import Report, arguments, cores, rates, side_by_side
from morphax import JosephsonMixer, evolve
from morphax.dynamics.exponential import _recurrence
from morphax.dynamics.faber import expand
from morphax.quantum import Populations
from morphax.quantum.lindblad import BosonicLindblad
from morphax.units import MHz, us

KAPPA, EPSILON, G, LEVELS, INTERVAL = (17 / us, 21 / us), 2.77 / us**0.5, 2 * MHz, 8, 100.0
RATES = EPSILON * np.sqrt(2 * np.array(KAPPA))
REQUIRED_ERROR = 1e-8
COHERENT_LONGER = 100


def main() -> None:
    parser = arguments(__doc__, quick=None)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--sequences", type=int, default=64)
    options = parser.parse_args()
    report = Report("josephson", options, "jax", "qutip", "dynamiqs", "numpy")
    jax.config.update("jax_enable_x64", True)
    drives = np.random.default_rng(7).uniform(-1, 1, (options.sequences, options.points))
    compare(report, drives, reference(drives[0]))
    arithmetic(report)
    gradients(report)
    report.finish()


def compare(report: Report, drives: np.ndarray, truth: np.ndarray) -> None:
    """The table of times, errors and ratios."""
    found: list[tuple[str, float, float, float]] = []
    for name, one, many in (*ours(drives), *dynamiqs_best(drives, truth), *qutip_best(drives, truth)):
        coherent = name == "morphax coherent"
        # The coherent method has no truncation and differs from the truncated reference by just that.
        error = 0.0 if coherent else np.abs(np.asarray(one()) - truth).max()
        longer = COHERENT_LONGER if coherent else 1
        single = best_time(one) / (longer * drives.shape[1])
        together = best_time(many, repeats=2) / (longer * drives.size)
        found.append((name, single * 1e3, together * 1e3, error))
        print(f"  measured {name}", file=sys.stderr)
    peers = [row for row in found if not row[0].startswith("morphax") and row[3] <= REQUIRED_ERROR]
    single, together = min(row[1] for row in peers), min(row[2] for row in peers)
    rows = [
        [name, a, single / a, b, together / b, f"{error:.0e}" if error else "untruncated"]
        for name, a, b, error in found
    ]
    header = ["ms a point", "one sequence", "ratio", f"{len(drives)} at once", "ratio there", "largest error"]
    report.table("peers", f"ms a point; ratios to the faster peer below {REQUIRED_ERROR:g}", header, rows)


def reference(drives: np.ndarray) -> np.ndarray:
    """All populations by SciPy's action of the matrix exponential of the sparse Liouvillian."""
    a = sp.kron(sp.diags(np.sqrt(np.arange(1, LEVELS)), 1), sp.identity(LEVELS)).tocsr()
    b = sp.kron(sp.identity(LEVELS), sp.diags(np.sqrt(np.arange(1, LEVELS)), 1)).tocsr()
    one = sp.identity(LEVELS**2)
    static = G * (a.T @ b + b.T @ a)
    pump = 1j * (RATES[0] * (a - a.T) + RATES[1] * (b - b.T))
    decay = sum(
        k * (sp.kron(c, c) - sp.kron(c.T @ c, one) / 2 - sp.kron(one, c.T @ c) / 2)
        for k, c in zip(KAPPA, (a, b), strict=True)
    )

    def commutator(H: Any) -> Any:
        return -1j * (sp.kron(H, one) - sp.kron(one, H.T))

    rho = np.zeros(LEVELS**4, complex)
    rho[0] = 1
    populations = []
    for drive in drives:
        rho = expm_multiply((commutator(static) + drive * commutator(pump) + decay) * INTERVAL, rho)
        populations.append(np.diag(rho.reshape(LEVELS**2, -1)).real)
    return np.array(populations)


def mixer(method: str, levels: int = LEVELS) -> JosephsonMixer:
    states = tuple((i, j) for i in range(levels) for j in range(levels))
    return JosephsonMixer.two_mode(method=method, levels=levels, measured=Populations(states))


def ours(drives: np.ndarray) -> list[tuple[str, Callable, Callable]]:
    """Both methods; many sequences one after the other on each core, which is faster than one wide batch."""
    inputs = jnp.asarray(drives)

    def pair(method: str) -> tuple[Callable, Callable]:
        device = mixer(method)
        run = jax.jit(lambda x: evolve(device, x)[0])
        if method == "coherent":
            batch = jax.jit(jax.vmap(lambda x: evolve(device, x)[0]))
            long = jnp.tile(inputs, (1, COHERENT_LONGER))
            return (lambda: run(long[0]).block_until_ready()), (lambda: batch(long).block_until_ready())

        queue = jax.jit(lambda xs: jax.lax.map(lambda x: evolve(device, x)[0], xs))
        shares = jnp.array_split(inputs, cores())

        def on_all_cores() -> None:
            with ThreadPoolExecutor(cores()) as pool:
                list(pool.map(lambda share: queue(share).block_until_ready(), shares))

        return (lambda: run(inputs[0]).block_until_ready()), on_all_cores

    return [(f"morphax {method}", *pair(method)) for method in ("coherent", "fock")]


def qutip_best(drives: np.ndarray, truth: np.ndarray) -> list[tuple[str, Callable, Callable]]:
    """QuTiP's fastest accurate integrator: a short trial of each, then the winner, in one process a core."""
    winner = None
    for kind in ("CSR", "Dia"):
        for method in ("adams", "dop853", "vern7", "vern9"):
            for tolerance in (1e-7, 1e-9, 1e-11):
                start = time.perf_counter()
                error = np.abs(qutip_solve(kind, method, tolerance, drives[0][:4]) - truth[:4]).max()
                seconds = time.perf_counter() - start
                if error < REQUIRED_ERROR / 2:
                    if winner is None or seconds < winner[0]:
                        winner = (seconds, kind, method, tolerance)
                    break
    assert winner is not None
    task = functools.partial(qutip_solve, *winner[1:])
    # Started anew, not forked: JAX runs threads that a fork would copy in an unknown state.
    pool = ProcessPoolExecutor(cores(), mp_context=multiprocessing.get_context("spawn"))
    return [("QuTiP {} {} {:g}".format(*winner[1:]), lambda: task(drives[0]), lambda: list(pool.map(task, drives)))]


def qutip_solve(kind: str, method: str, tolerance: float, sequence: np.ndarray) -> np.ndarray:
    """All populations after every point, one mesolve a point."""
    import qutip

    lower, one = qutip.destroy(LEVELS), qutip.qeye(LEVELS)
    a, b = qutip.tensor(lower, one), qutip.tensor(one, lower)
    pump = (1j * (RATES[0] * (a - a.dag()) + RATES[1] * (b - b.dag()))).to(kind)
    static = (G * (a.dag() @ b + b.dag() @ a)).to(kind)
    ports = [(np.sqrt(KAPPA[0]) * a).to(kind), (np.sqrt(KAPPA[1]) * b).to(kind)]
    options = {"method": method, "rtol": tolerance, "atol": tolerance / 100, "progress_bar": "", "nsteps": 10**6}
    options["matrix_form"] = kind == "Dia"
    rho, populations = qutip.fock_dm([LEVELS, LEVELS], [0, 0]).to("Dense"), []
    for drive in sequence:
        rho = qutip.mesolve(static + drive * pump, rho, [0, INTERVAL], ports, options=options).final_state
        populations.append(np.real(rho.diag()))
    return np.array(populations)


def dynamiqs_best(drives: np.ndarray, truth: np.ndarray) -> list[tuple[str, Callable, Callable]]:
    """dynamiqs' fastest accurate solvers, compiled, one point after the other inside one scan."""
    import dynamiqs as dq

    dq.set_precision("double")
    inputs = jnp.asarray(drives)

    def program(layout: str, method: Any) -> Callable:
        a, b = dq.destroy(LEVELS, LEVELS, layout=getattr(dq, layout))
        static = G * (a.dag() @ b + b.dag() @ a)
        pump = 1j * (RATES[0] * (a - a.dag()) + RATES[1] * (b - b.dag()))
        ports = [np.sqrt(KAPPA[0]) * a, np.sqrt(KAPPA[1]) * b]

        def point(rho: Any, drive: Any) -> tuple[Any, Any]:
            state = dq.asqarray(rho, dims=(LEVELS, LEVELS))
            span = jnp.array([0, INTERVAL])
            H = static + drive * pump
            done = dq.mesolve(H, ports, state, span, method=method, progress_meter=False, save_states=False)
            rho = done.final_state.to_jax()
            return rho, jnp.diagonal(rho).real

        vacuum = jnp.zeros((LEVELS**2, LEVELS**2), complex).at[0, 0].set(1)
        return lambda x: jax.lax.scan(point, vacuum, x)[1]

    rows = []
    for layout, solver in (("dia", "Tsit5"), ("dia", "Dopri8")):
        for tolerance in (1e-6, 1e-7, 1e-8, 1e-9):
            one = program(layout, getattr(dq.method, solver)(rtol=tolerance, atol=tolerance / 100))
            run = jax.jit(one)
            if np.abs(run(inputs[0]) - truth).max() <= REQUIRED_ERROR:
                queue = jax.jit(lambda xs, one=one: jax.lax.map(one, xs))

                def many(queue: Callable = queue) -> None:
                    shares = jnp.array_split(inputs, cores())
                    with ThreadPoolExecutor(len(shares)) as pool:
                        list(pool.map(lambda share: queue(share).block_until_ready(), shares))

                single = functools.partial(lambda run: run(inputs[0]).block_until_ready(), run)
                rows.append((f"dynamiqs {layout} {solver} {tolerance:g}", single, many))
                break
    return rows


def arithmetic(report: Report) -> None:
    """Useful arithmetic of a term of the Fock method, as the propagator runs it, against what one core can do."""
    generator = BosonicLindblad(jnp.array([[0, G], [G, 0]]), jnp.array(KAPPA), levels=(LEVELS, LEVELS))
    equation, drive, terms = generator._equation(), jnp.asarray(RATES), 100

    def added(state: jax.Array) -> tuple[jax.Array, ...]:
        expansion = expand(generator.enclosure(drive), jnp.asarray(INTERVAL))
        recurrence = _recurrence(equation, generator._rates(drive), jnp.asarray(INTERVAL), expansion)
        start = recurrence.begin_sum(state, expansion)
        return jax.lax.fori_loop(0, terms // 2, lambda pair, sums: recurrence.add(expansion, pair, sums), start)

    run, state = jax.jit(added), jnp.eye(LEVELS**2) / LEVELS**2
    seconds = side_by_side({"term": lambda: run(state)}, 20)["term"].processor / terms
    # Diagonals of K_r (5) and K_i (3), each from the left and from the right, two jumps of three operations, and two
    # numbers times states: in the recurrence, and of the term in the sum.
    flops = LEVELS**4 * (2 * 8 * 2 + 2 * 3 + 4 + 2)
    can = {kind: rate / cores() for kind, rate in rates(double=True).items()}
    rate = flops / seconds
    rows = [["one term at 2 x 8 levels", 1e6 * seconds, rate / 1e9]]
    rows += [[f"the core's {kind}", None, can[kind] / 1e9] for kind in ("products", "elementwise")]
    report.table("term", "Arithmetic of a term, one core, double precision", ["", "us", "GFLOP/s"], rows)


def gradients(report: Report) -> None:
    """Gradient with respect to all rates and inputs, in values; processor time, which other work disturbs least."""
    rows = []
    for levels in (4, 6, 8, 10, 12):
        drives = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, 10))
        device = mixer("fock", levels)

        def value(device: JosephsonMixer, drives: jax.Array) -> jax.Array:
            return jnp.sum(jnp.sin(7 * evolve(device, drives)[0]))

        calls = {"value": jax.jit(value), "gradient": jax.jit(jax.grad(value, argnums=(0, 1)))}
        times = side_by_side({name: functools.partial(call, device, drives) for name, call in calls.items()}, 7)
        one, slopes = (1e3 * found.processor / drives.size for found in times.values())
        rows.append([f"2 x {levels}", one, slopes, slopes / one])
    header = ["modes x levels", "value, ms a point", "gradient, ms a point", "gradient / value"]
    report.table("gradients", "Gradient with respect to all rates and inputs; processor time", header, rows)


def best_time(run: Callable, repeats: int = 5) -> float:
    """Least of several times, after one call to compile and warm up."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()
