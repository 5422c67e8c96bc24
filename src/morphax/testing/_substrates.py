"""What substrates promise."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from morphax.learning.rule import described
from morphax.pytrees import Role, roles, select, unassigned
from morphax.saving import NowhereError, load, save
from morphax.substrates.base import Substrate, count_neurons, evolve, numbers_of
from morphax.substrates.energy import EnergySubstrate, Nudge
from morphax.substrates.imperfections import mismatch
from morphax.testing._promises import (
    KEY,
    POINTS,
    BrokenPromiseError,
    Promise,
    cast,
    check_all,
    check_slope,
    close,
    equal,
    shapes,
    short,
    some_drive,
    that,
    widest,
    words,
)


def check_substrate(substrate: Substrate) -> None:
    """Try whether a substrate keeps what the library promises of every one.

    Roles on all arrays; drives of the channels that it declares, one channel with or without its axis; the same numbers
    for the same key, alone, compiled, batched and in `stepper`; single and double precision; finite derivatives, and
    those of finite differences where they are said to be exact; noise, mismatch, saving. Of an energy substrate also:
    its force is minus the slope of its energy, it comes to rest, and it follows a nudge.

    **Raises:** `BrokenPromiseError` with one sentence for each broken promise.

        >>> import jax
        >>> from morphax import SpintronicNetwork
        >>> from morphax.testing import check_substrate
        >>> check_substrate(SpintronicNetwork.random((3, 2), key=jax.random.key(0)))
    """
    check_all(substrate_promises(substrate), described(substrate))


def substrate_promises(substrate: Substrate) -> list[Promise]:
    """The promises that `check_substrate` tries, one by one."""
    if not isinstance(substrate, Substrate):
        raise BrokenPromiseError(
            f"{substrate!r:.80} is no Substrate: derive its class from morphax.Substrate and make one"
        )
    tries: list[Callable[[Any], None]] = [
        _every_array_has_a_role,
        _it_takes_the_channels_that_it_declares,
        _one_channel_comes_with_or_without_its_axis,
        _the_same_key_gives_the_same_numbers,
        _compiled_and_batched_it_gives_the_same,
        _the_stepper_is_the_step,
        _numbers_keep_their_precision,
        _derivatives_are_finite_and_right,
        _noise_disturbs_the_state,
        _mismatch_varies_devices_and_weights,
        _it_can_be_saved_and_loaded,
    ]
    if isinstance(substrate, EnergySubstrate):
        tries += [_force_is_the_slope_of_the_energy, _it_comes_to_rest, _it_follows_a_nudge]
    return [Promise(words(attempt), lambda a=attempt: a(substrate)) for attempt in tries]


def _every_array_has_a_role(substrate: Substrate) -> None:
    paths = unassigned(substrate)
    that(
        not paths,
        f"{', '.join(paths)} has no role: declare eqx.field(metadata=WEIGHT) for what is learned, DEVICE for what the "
        "material gives, SETTING for what an experimenter sets",
    )
    numbers = [
        jax.tree_util.keystr(path)
        for (path, leaf), role in zip(
            jax.tree_util.tree_leaves_with_path(substrate), jax.tree.leaves(roles(substrate)), strict=True
        )
        if isinstance(leaf, float) and role in ("weight", "device")
    ]
    that(
        not numbers,
        f"{', '.join(numbers)} is a Python float with a role, which nothing trains: make it an array",
    )


def _it_takes_the_channels_that_it_declares(substrate: Substrate) -> None:
    numbers = numbers_of(substrate.channels)
    that(
        bool(numbers) and all(isinstance(n, int) and n >= 1 for n in numbers),
        f"channels is {substrate.channels!r}; it must be a whole number >= 1, or a tuple of such",
    )
    for channels in numbers:
        try:
            outputs, after = evolve(substrate, some_drive(channels), key=KEY)
        except Exception as error:
            raise BrokenPromiseError(
                f"channels says {substrate.channels}, but an input of shape ({channels},) fails with "
                f"{type(error).__name__}: {short(error)}; say in the property `channels` what step takes, and let it "
                "return a state of the structure, shapes and types that it got"
            ) from error
        that(
            outputs.ndim == 2 and jnp.issubdtype(outputs.dtype, jnp.floating),
            f"observe gives {outputs.dtype} of shape {outputs.shape[1:]}; it must give real numbers, shape (neurons,)",
        )
        that(bool(jnp.all(jnp.isfinite(outputs))), "an observation is not finite for inputs between 0 and 1")
        start = substrate.initial_state(key=KEY)
        that(
            shapes(start) == shapes(after),
            "step changes the structure, shapes or types of the state; it must return what it got: "
            f"{shapes(start)} becomes {shapes(after)}",
        )


def _one_channel_comes_with_or_without_its_axis(substrate: Substrate) -> None:
    if 1 not in numbers_of(substrate.channels):
        return
    drive = some_drive(1)
    one, other = (evolve(substrate, d, key=KEY)[0] for d in (drive, drive[:, 0]))
    that(
        close(one, other),
        "an input of shape (1,) gives other numbers than the same of shape (); begin step with drive = "
        "jnp.atleast_1d(drive), or sum over it",
    )


def _the_same_key_gives_the_same_numbers(substrate: Substrate) -> None:
    drive, before = some_drive(widest(substrate)), jax.tree.map(lambda x: x, substrate)
    one, other = (evolve(substrate, drive, key=KEY)[0] for _ in range(2))
    that(equal(one, other), "the same key gives other numbers: draw all chance from `key`, with jax.random")
    that(equal(before, substrate), "driving it changes it: methods must not write to self")
    try:
        one, other = (evolve(substrate, drive)[0] for _ in range(2))
    except ValueError as error:
        that("key" in str(error), f"without a key it raises {short(error)!r}; where it needs one, say: key is None")
    else:
        that(equal(one, other), "without a key it is random: chance needs a key, or a ValueError that asks for one")


def _compiled_and_batched_it_gives_the_same(substrate: Substrate) -> None:
    drives = jnp.stack([some_drive(widest(substrate), seed) for seed in range(3)])
    keys = jax.random.split(KEY, 3)
    alone = jnp.stack([_stepped(substrate, d, k) for d, k in zip(drives, keys, strict=True)])
    compiled = eqx.filter_jit(lambda s, d, k: evolve(s, d, key=k)[0])
    one_by_one = jnp.stack([compiled(substrate, d, k) for d, k in zip(drives, keys, strict=True)])
    that(
        close(alone, one_by_one),
        "step by step it gives other numbers than compiled: methods must "
        "depend on their arguments and fields alone, and draw all chance from `key`",
    )
    together = jax.vmap(lambda d, k: evolve(substrate, d, key=k)[0])(drives, keys)
    that(close(alone, together), "a batch (jax.vmap) gives other numbers than its examples alone")


def _the_stepper_is_the_step(substrate: Substrate) -> None:
    drive, state = some_drive(widest(substrate))[0], substrate.initial_state(key=KEY)
    one, other = substrate.step(state, drive, key=KEY), substrate.stepper()(state, drive, key=KEY)
    that(close(one, other), "stepper() steps to another state than step: it may only share what steps have in common")


def _numbers_keep_their_precision(substrate: Substrate) -> None:
    for precise, dtype in ((False, jnp.float32), (True, jnp.float64)):
        with jax.enable_x64(precise):
            drive = some_drive(widest(substrate)).astype(dtype)
            outputs, _ = evolve(cast(substrate, dtype), drive, key=jax.random.key(7))
            that(
                outputs.dtype == dtype,
                f"with all arrays in {jnp.dtype(dtype).name} the observation is {outputs.dtype}: somewhere an array is "
                "made with a type of its own (take it from a field: jnp.zeros_like(self...))",
            )
            that(bool(jnp.all(jnp.isfinite(outputs))), f"in {jnp.dtype(dtype).name} an observation is not finite")


def _derivatives_are_finite_and_right(substrate: Substrate) -> None:
    with jax.enable_x64(True):
        precise, key = cast(substrate, jnp.float64), jax.random.key(7)
        moving, rest = select(precise, "weight", "device")
        if not jax.tree.leaves(moving):
            return
        drive = some_drive(widest(substrate)).astype(jnp.float64)
        shadow = jax.random.normal(key, (POINTS, count_neurons(precise)))

        def shown(moving: PyTree) -> Array:
            return jnp.sum(shadow * evolve(eqx.combine(moving, rest), drive, key=key)[0])

        slopes = jax.grad(lambda m: shown(m).real)(moving)
        for path, leaf in jax.tree_util.tree_leaves_with_path(slopes):
            that(
                bool(jnp.all(jnp.isfinite(leaf))),
                f"the derivative with respect to {jax.tree_util.keystr(path)} is not finite (a square root or a norm "
                "at 0, or jnp.where over a NaN?)",
            )
        if not substrate.exact_derivatives:
            return
        check_slope(
            shown, moving, slopes, "the derivative of what is observed", rests=isinstance(substrate, EnergySubstrate)
        )


def _noise_disturbs_the_state(substrate: Substrate) -> None:
    state = substrate.initial_state(key=KEY)
    try:
        same, moved = (substrate.disturb(state, amplitude, key=KEY) for amplitude in (0.0, 0.1))
    except ValueError:
        return  # A substrate may say why its state takes no noise.
    that(shapes(same) == shapes(state) == shapes(moved), "disturb must return a state like the one it got")
    that(close(same, state), "disturb with amplitude 0 changes the state")
    if any(eqx.is_inexact_array(leaf) and leaf.size for leaf in jax.tree.leaves(state)):
        that(not equal(moved, state), "disturb with amplitude 0.1 leaves the state as it is")


def _mismatch_varies_devices_and_weights(substrate: Substrate) -> None:
    for role in ("weight", "device"):
        chosen: Role = "weight" if role == "weight" else "device"
        if not jax.tree.leaves(select(substrate, chosen)[0]):
            continue
        chip = mismatch(substrate, **{f"{role}s": 0.05}, key=KEY)
        again = mismatch(substrate, **{f"{role}s": 0.05}, key=KEY)
        that(equal(chip, again), "the same key makes another chip")
        ours, theirs = select(substrate, chosen), select(chip, chosen)
        that(equal(ours[1], theirs[1]), f"a spread of {role} leaves changes others")
        if any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(ours[0])):
            that(not equal(ours[0], theirs[0]), f"a spread of {role} leaves changes nothing")
        outputs, _ = evolve(chip, some_drive(widest(substrate)), key=KEY)
        that(bool(jnp.all(jnp.isfinite(outputs))), f"a chip whose {role} leaves differ by 5 % is not finite")


def _it_can_be_saved_and_loaded(substrate: Substrate) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            again = load(save(Path(folder) / "substrate", substrate))
        except NowhereError:
            return  # Typed into a notebook, a class can be tried, but not stored.
    that(
        type(again).__name__ == type(substrate).__name__ and equal(again, substrate),
        "saved and loaded it is another one",
    )
    drive = some_drive(widest(substrate))
    that(equal(evolve(again, drive, key=KEY)[0], evolve(substrate, drive, key=KEY)[0]), "loaded it gives other numbers")


def _force_is_the_slope_of_the_energy(substrate: EnergySubstrate) -> None:
    with jax.enable_x64(True):
        precise, key = cast(substrate, jnp.float64), jax.random.key(7)
        drive = some_drive(widest(substrate))[0].astype(jnp.float64)
        state = precise.initial_state(key=key)
        slope = jax.grad(precise.energy)(state, drive)
        pushed = precise.force(state, drive)
        # Inside the range of an activation; where one is clipped the dynamics may go on.
        along = sum(jnp.sum(a * -b) for a, b in zip(jax.tree.leaves(pushed), jax.tree.leaves(slope), strict=True))
        that(shapes(pushed) == shapes(state), "force must have the structure of the state")
        that(
            float(along) >= -1e-9, "force points up the energy: it must be minus its derivative, or go downhill with it"
        )
        that(
            close(precise.landscape(drive).force(state), pushed, 1e-8),
            "landscape(drive).force differs from force: they are the same dynamics",
        )


def _it_comes_to_rest(substrate: EnergySubstrate) -> None:
    drive = some_drive(widest(substrate))[0]
    rest = substrate.relax(drive, key=KEY)
    left = jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in jax.tree.leaves(substrate.force(rest.state, drive))]))
    that(bool(jnp.isfinite(left)), "a relaxation ends in NaN or infinity")
    start = substrate.initial_state(key=KEY)
    that(
        float(substrate.energy(rest.state, drive)) <= float(substrate.energy(start, drive)) + 1e-5
        or not bool(rest.converged),
        "a relaxation ends at a higher energy than it began with",
    )


def _it_follows_a_nudge(substrate: EnergySubstrate) -> None:
    drive = some_drive(widest(substrate))[0]
    free = substrate.relax(drive, key=KEY)
    outputs = substrate.observe(free.state)
    cost = substrate.default_cost
    nudge = Nudge(cost, 0.5, outputs + 0.1)
    pulled = substrate.relax(drive, state=free.state, nudge=nudge, key=KEY)
    before, after = (nudge.energy(substrate.observe(s)) for s in (free.state, pulled.state))
    that(
        float(after) <= float(before) + 1e-6,
        "a nudge moves the outputs away from their targets: landscape(drive, nudge) must add the force of "
        "nudge.energy(observe(state))",
    )


def _stepped(substrate: Substrate, drives: Array, key: PRNGKeyArray) -> Array:
    """What `evolve` does, written out: step by step, and not compiled as a whole."""
    first, per_step = jax.random.split(key)
    state, observed = substrate.initial_state(key=first), []
    for drive, step_key in zip(drives, jax.random.split(per_step, len(drives)), strict=True):
        noise, reading = jax.random.split(step_key)
        state = substrate.step(state, drive, key=noise)
        observed.append(substrate.observe(state, key=reading))
    return jnp.stack(observed)
