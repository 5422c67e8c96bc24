"""The quantised perceptron: seconds for an epoch of 5,000 images and for 15 shots of 10,000, against plain PyTorch.

    python benchmarks/quantized.py [--quick] [--threads 1] [--keep]

784-512-512-512-10, batches of 64, gradient descent with momentum, single precision, same arithmetic, random images.
Regimes: classical, rotation (a = 0.316), both (a = 0.464, g = 9 pi / 19). First one network, with one thread and with
all; then four networks in one call of `train`, four widths a, then four points (a, g) (on a CPU each core takes one
after the other), against PyTorch training them one after the other. Last, 15 shots: morphax in one call, morphax in 15
separate passes, PyTorch in 15 passes.

A forward and backward pass of an epoch is 24 billion floating-point operations in matrix products (without the gradient
with respect to the images); their rate is shown beside that of the machine's own product of two 1024 x 1024 matrices.
"""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from measuring import Report, Times, arguments, rates, side_by_side
from morphax import QuantizedPerceptron
from morphax.learning.backprop import Backpropagation
from morphax.learning.train import train
from morphax.learning.voting import vote

SIZES, BATCH, IMAGES, TESTS, SHOTS = (784, 512, 512, 512, 10), 64, 5_000, 10_000, 15
BATCHES = IMAGES // BATCH
PRODUCTS = 2 * BATCHES * BATCH * (2 * 784 * 512 + 3 * (2 * 512 * 512 + 512 * 10))
REGIMES: dict[str, dict[str, Any]] = {
    "classical": {},
    "rotation": {"width": 0.316},
    "both": {"width": 0.464, "strength": 9 * np.pi / 19},
}
SWEEPS = {
    "widths a": {"width": (0.1, 0.316, 0.464, 1.0)},
    "points (a, g)": {
        "width": (0.316, 0.464, 0.464, 1.0),
        "strength": (5 * np.pi / 19, 9 * np.pi / 19, 5 * np.pi / 19, 9 * np.pi / 19),
    },
}
OPTIMISER = optax.sgd(0.01, momentum=0.9)


def main() -> None:
    options = arguments(__doc__).parse_args()
    report = Report("quantized", options, "jax", "optax", "torch", "numpy")
    torch.set_num_threads(report.threads)
    repeats = 3 if options.quick else 7
    key = jax.random.key(0)
    random = np.random.default_rng(0)
    images = random.standard_normal((TESTS, 784)).astype(np.float32)
    labels = random.integers(0, 10, TESTS)
    rate = rates()["products"]
    data = (jnp.asarray(images[:IMAGES, None]), jnp.eye(10)[labels[:IMAGES]])
    step = partial(
        train, rule=Backpropagation(), data=data, optimiser=OPTIMISER, key=key, batch_size=BATCH, chunk=BATCHES
    )
    rows = []

    def compare(name: str, found: dict[str, Times], products: float | None = None) -> None:
        ours, theirs = found["morphax"].median, found["PyTorch"].median
        share = "" if products is None else f"{products / ours / rate:.0%}"
        rows.append([name, ours, theirs, theirs / ours, share])

    for name, numbers in REGIMES.items():
        network = QuantizedPerceptron.random(SIZES, key=key, **numbers)
        peer = Peer(network, images, labels, **numbers)
        ours = partial(step, network, steps=BATCHES)
        found = side_by_side({"morphax": lambda run=ours: run().last, "PyTorch": peer.epoch}, repeats)
        compare(f"an epoch of 5,000 images, {name}", found, PRODUCTS)
    for points, numbers in SWEEPS.items():
        stack = eqx.filter_vmap(lambda point: QuantizedPerceptron.random(SIZES, key=key, **point))(
            {name: jnp.array(values) for name, values in numbers.items()}
        )
        each = [dict(zip(numbers, values, strict=True)) for values in zip(*numbers.values(), strict=True)]
        peers = [Peer(QuantizedPerceptron.random(SIZES, key=key), images, labels, **point) for point in each]
        ours = partial(step, stack, steps=3 * BATCHES, ensemble=True)
        theirs = partial(train_peers, peers)
        found = side_by_side({"morphax": lambda run=ours: run().last, "PyTorch": theirs}, max(1, repeats // 2))
        compare(f"three epochs of four networks, {points}, one call", found)
    tests = jnp.asarray(images[:, None])
    for name in ("rotation", "both"):
        network = QuantizedPerceptron.random(SIZES, key=key, **REGIMES[name])
        peer = Peer(network, images, labels, **REGIMES[name])
        together = eqx.filter_jit(lambda n, k: vote(n, tests, SHOTS, key=k))
        single = eqx.filter_jit(lambda n, k: vote(n, tests, 1, key=k))
        found = side_by_side(
            {
                "morphax": lambda n=network, f=together: f(n, key),
                "15 calls": lambda n=network, f=single: [f(n, jax.random.key(i)) for i in range(SHOTS)],
                "PyTorch": peer.votes,
            },
            max(1, repeats // 2),
        )
        compare(f"15 shots of 10,000 images in one call, {name}", found)
        compare(f"15 calls of one shot, {name}", {**found, "morphax": found["15 calls"]})
    title = f"Against PyTorch; products of 1024 x 1024: {rate / 1e9:.0f} GFLOP/s"
    report.table("peers", title, ["", "morphax, s", "PyTorch, s", "ratio", "of the rate of products"], rows)
    report.finish()


class Peer:
    """The same network in PyTorch, with weights of its own copy."""

    def __init__(
        self, network: QuantizedPerceptron, images: Any, labels: Any, width: float = 0.0, strength: float | None = None
    ):
        self.weights = [torch.tensor(np.asarray(w), requires_grad=True) for w in network.weights]
        self.images, self.labels = torch.tensor(images), torch.tensor(labels)
        self.width, self.strength = width, strength
        self.optimiser = torch.optim.SGD(self.weights, lr=0.01, momentum=0.9)

    def outputs(self, below: torch.Tensor) -> torch.Tensor:
        memory = None
        for matrix in self.weights[:-1]:
            h = below @ matrix.T
            with torch.no_grad():
                outcomes, memory = self.measured(h, memory)
            soft = h.clamp(-1, 1)
            below = soft + (outcomes - soft).detach()
        return below @ self.weights[-1].T

    def measured(self, h: torch.Tensor, memory: Any) -> tuple[torch.Tensor, Any]:
        sign = torch.where(h >= 0, 1.0, -1.0)
        if not self.width and self.strength is None:
            return sign, None
        phi = (h / self.width).clamp(-1, 1) if self.width else sign
        sine = torch.sin(phi * (torch.pi / 2))
        if self.strength is None:
            return torch.where(torch.rand_like(h) < (1 + sine) / 2, 1.0, -1.0), None
        cosine = torch.cos(phi * (torch.pi / 2))
        z, x = sine, cosine
        if memory is not None:
            before, old_z, old_x = memory
            z, x = before * (old_z * sine - old_x * cosine), before * (old_x * sine + old_z * cosine)
        s = float(np.sin(self.strength))
        outcomes = torch.where(torch.rand_like(h) < (1 + s * z) / 2, 1.0, -1.0)
        norm = 1 + outcomes * s * z
        return outcomes, (outcomes, (z + outcomes * s) / norm, x * float(np.cos(self.strength)) / norm)

    def epoch(self) -> None:
        order = torch.randperm(IMAGES)
        for start in range(0, BATCHES * BATCH, BATCH):
            chosen = order[start : start + BATCH]
            loss = torch.nn.functional.cross_entropy(self.outputs(self.images[chosen]), self.labels[chosen])
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()

    def votes(self) -> torch.Tensor:
        counts = torch.zeros(TESTS, 10)
        with torch.no_grad():
            for _ in range(SHOTS):
                for start in range(0, TESTS, 1000):
                    answers = self.outputs(self.images[start : start + 1000]).argmax(1)
                    counts[torch.arange(start, start + 1000), answers] += 1
        return counts


def train_peers(peers: list[Peer]) -> None:
    """Three epochs of each, one network after the other."""
    for peer in peers:
        for _ in range(3):
            peer.epoch()


if __name__ == "__main__":
    main()
