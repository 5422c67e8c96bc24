"""A channel to be undone, and parities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax.tasks.channels import ECHOES, SYMBOLS, channel_equalisation, parity, symbol_errors

KEY = jax.random.key(0)


def test_the_channel_has_the_echoes_of_the_paper():
    """Without noise the distortion is undone by its inverse, and what is left is the convolution of what was sent."""
    task = channel_equalisation(400, 100, signal_to_noise=300.0, washout=0, key=KEY)
    sent = np.concatenate([task.train_targets, task.test_targets])[:, 0]  # d(n - 2)
    heard = np.concatenate([task.train_inputs, task.test_inputs])
    for n in range(20, 400):
        # d(n - k) stands at n - k + 2 of what is asked for.
        q = sum(h * sent[n - k + 2] for h, k in zip(ECHOES, range(-2, 8), strict=True))
        assert heard[n] == pytest.approx(q + 0.036 * q**2 - 0.011 * q**3, abs=1e-3)


def test_noise_is_as_loud_as_asked():
    quiet, loud = (channel_equalisation(20_000, 10, signal_to_noise=level, key=KEY) for level in (300.0, 12.0))
    noise = np.asarray(loud.train_inputs - quiet.train_inputs)
    ratio = 20 * np.log10(np.std(quiet.train_inputs) / noise.std())
    assert ratio == pytest.approx(12, abs=0.1)


def test_symbols_are_told_by_the_next_one():
    sent = jnp.array([[-3.0], [-1.0], [1.0], [3.0]])
    assert symbol_errors(sent + 0.9, sent) == 0
    assert symbol_errors(jnp.array([[-1.9], [-1.0], [2.1], [9.0]]), sent) == 0.5
    assert len(SYMBOLS) == 4


@pytest.mark.parametrize("order", [1, 2, 4])
def test_parity_is_the_product_of_signs(order):
    task = parity(order, 500, 100, key=KEY)
    inputs = np.concatenate([task.train_inputs, task.test_inputs])
    targets = np.concatenate([task.train_targets, task.test_targets])[:, 0]
    products = np.prod([np.roll(-inputs, k) for k in range(order)], axis=0)[order:]
    assert (1 - 2 * targets[order:]).tolist() == products.tolist()


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="order is 0"):
        parity(0, key=KEY)
    with pytest.raises(ValueError, match="washout is 1; it must be a whole number from 2"):
        parity(3, washout=1, key=KEY)
    with pytest.raises(ValueError, match="signal_to_noise"):
        channel_equalisation(signal_to_noise=float("nan"), key=KEY)
