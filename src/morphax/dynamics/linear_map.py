"""Maps that are linear in one argument and are told their own transpose.

What JAX derives by transposing a program line by line is often several times slower than the adjoint that one writes
by hand, and loops of unknown length have no derived transpose at all. `jax.custom_vjp` gives the adjoint, and takes
forward mode and second derivatives away. A `LinearMap` keeps them all.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import PyTree


class LinearMap(NamedTuple):
    """y = A(r) x with its transpose: three functions of pytrees of arrays, whose structure shapes and types decide.

    They are kept with what was compiled for them: make a map once, not within a loop.

    Attributes
    ----------
    map
        (r, x) -> y.
    transpose
        (r, y) -> x, the adjoint of `map`.
    smooth
        The same as `map`, and JAX can differentiate it any number of times; used where a derivative with respect to
        r is wanted, and nowhere else.
    """

    map: Callable[[Any, Any], Any]
    transpose: Callable[[Any, Any], Any]
    smooth: Callable[[Any, Any], Any]

    def __call__(self, given: PyTree, operand: PyTree) -> PyTree:
        """A(r) x, with derivatives of any order in both modes."""
        given, operand = jax.tree.map(jnp.asarray, (given, operand))
        known, known_tree = jax.tree.flatten(given)
        leaves, tree = jax.tree.flatten(operand)
        image_tree = jax.tree.structure(jax.eval_shape(self.map, given, operand))
        image = _linear_p.bind(*known, *leaves, linear=self, trees=(known_tree, tree, image_tree))
        return jax.tree.unflatten(image_tree, image)


def _evaluate(*operands, linear: LinearMap, trees):
    return jax.tree.leaves(linear.map(*_unflatten(operands, trees)))


def _unflatten(operands, trees):
    known = trees[0].num_leaves
    return jax.tree.unflatten(trees[0], operands[:known]), jax.tree.unflatten(trees[1], operands[known:])


def _shapes(*operands, linear, trees):
    image = jax.eval_shape(partial(_evaluate, linear=linear, trees=trees), *operands)
    return [ShapedArray(x.shape, x.dtype) for x in image]


def _jvp(primals, tangents, *, linear, trees):
    known = trees[0].num_leaves
    image = _linear_p.bind(*primals, linear=linear, trees=trees)
    changes = []
    if any(type(t) is not ad.Zero for t in tangents[known:]):
        operand_dot = [ad.instantiate_zeros(t) for t in tangents[known:]]
        changes = _linear_p.bind(*primals[:known], *operand_dot, linear=linear, trees=trees)
    moving = [i for i, t in enumerate(tangents[:known]) if type(t) is not ad.Zero]
    if moving:

        def moved(*values):
            operands = list(primals)
            for i, value in zip(moving, values, strict=True):
                operands[i] = value
            return jax.tree.leaves(linear.smooth(*_unflatten(operands, trees)))

        _, more = jax.jvp(moved, [primals[i] for i in moving], [tangents[i] for i in moving])
        changes = [a + b for a, b in zip(changes, more, strict=True)] if changes else more
    return image, changes


def _transpose(cotangents, *operands, linear, trees):
    known = trees[0].num_leaves
    shapes = tuple(x.aval if ad.is_undefined_primal(x) else jax.typeof(x) for x in operands[known:])
    back = _transposed(linear, trees[1], tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in shapes))
    image = [ad.instantiate_zeros(cotangent) for cotangent in cotangents]
    found = _linear_p.bind(*operands[:known], *image, linear=back, trees=(trees[0], trees[2], trees[1]))
    wanted = [
        lax.convert_element_type(x, y.aval.dtype) if ad.is_undefined_primal(y) else None
        for x, y in zip(found, operands[known:], strict=True)
    ]
    return [*[None] * known, *wanted]


@lru_cache(maxsize=256)
def _transposed(linear: LinearMap, tree, shapes) -> LinearMap:
    operand = jax.tree.unflatten(tree, shapes)

    def smooth(given, image):
        return jax.linear_transpose(partial(linear.smooth, given), operand)(image)[0]

    return LinearMap(linear.transpose, linear.map, smooth)


def _batch(operands, axes, *, linear, trees):
    (size,) = {x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None}
    known = trees[0].num_leaves

    def lanes(x, axis):
        return jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)

    # What is given may be shared; what is linear is not, so that the transpose of one lane is one lane.
    leaves = [lanes(x, axis) for x, axis in zip(operands[known:], axes[known:], strict=True)]
    batched = _batched(linear, trees[0], tuple(axes[:known]))
    image = _linear_p.bind(*operands[:known], *leaves, linear=batched, trees=trees)
    return image, [0] * len(image)


@lru_cache(maxsize=256)
def _batched(linear: LinearMap, tree, axes) -> LinearMap:
    in_axes = jax.tree.unflatten(tree, axes), 0
    return LinearMap(*(jax.vmap(function, in_axes) for function in linear))


_linear_p = Primitive("linear_map")
_linear_p.multiple_results = True
_linear_p.def_impl(partial(jax.jit, static_argnames=("linear", "trees"))(_evaluate))
_linear_p.def_abstract_eval(_shapes)
ad.primitive_jvps[_linear_p] = _jvp
ad.primitive_transposes[_linear_p] = _transpose
batching.primitive_batchers[_linear_p] = _batch
mlir.register_lowering(_linear_p, mlir.lower_fun(_evaluate, multiple_results=True))
