"""Functions that acting programs call where NumPy has no single call of its own.

Each returns a new array of the dtype of its (first) argument, as TensorFlow does.
"""

import math

import numpy as np

# Rational minimax approximation of erf on [-4, 4]; beyond it single precision is 1.
_ERF_ALPHA = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_BETA = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)
_exact_erf = np.vectorize(math.erf, otypes=[np.float64])
_exact_erfc = np.vectorize(math.erfc, otypes=[np.float64])
_exact_lgamma = np.vectorize(math.lgamma, otypes=[np.float64])


def _polynomial(x, coefficients):
    total = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total *= x
        total += coefficient
    return total


def erf(x):
    """The error function, to single precision for float32 and exact for float64."""
    x = np.asarray(x)
    if x.dtype == np.float64:
        return _exact_erf(x)
    clipped = np.minimum(np.maximum(x, -4), 4).astype(np.float32, copy=False)
    square = clipped * clipped
    ratio = _polynomial(square, _ERF_ALPHA)
    ratio /= _polynomial(square, _ERF_BETA)
    ratio *= clipped
    return ratio.astype(x.dtype, copy=False)


def erfc(x):
    """One minus the error function, without cancellation."""
    x = np.asarray(x)
    return _exact_erfc(x).astype(x.dtype)


def lgamma(x):
    """Logarithm of the absolute value of the gamma function."""
    x = np.asarray(x)
    return _exact_lgamma(x).astype(x.dtype)


def softsign(x):
    """x / (1 + |x|)."""
    return x / (1 + np.absolute(x))


def divide_no_nan(x, y):
    """x / y, and zero where y is zero."""
    shape = np.broadcast_shapes(np.shape(x), np.shape(y))
    out = np.zeros(shape, np.asarray(x).dtype)
    return np.divide(x, y, out=out, where=np.not_equal(y, 0))


def multiply_no_nan(x, y):
    """x * y, and zero where y is zero, whatever x is."""
    return np.where(np.equal(y, 0), np.zeros((), np.asarray(x).dtype), x * y)


def _zero_where_zero(x, result):
    return np.where(np.equal(x, 0), np.zeros((), np.asarray(x).dtype), result)


def xlogy(x, y):
    """x * log(y), and zero where x is zero."""
    return _zero_where_zero(x, x * np.log(y))


def xlog1py(x, y):
    """x * log(1 + y), and zero where x is zero."""
    return _zero_where_zero(x, x * np.log1p(y))


def xdivy(x, y):
    """x / y, and zero where x is zero."""
    return _zero_where_zero(x, x / y)


def truncate_divide(x, y):
    """Integer division that rounds towards zero."""
    return np.trunc(np.divide(x, y)).astype(np.asarray(x).dtype)


def cumulative(ufunc, x, axis, exclusive, reverse):
    """Cumulative sum or product with TensorFlow's two switches."""
    if reverse:
        x = np.flip(x, axis)
    out = ufunc.accumulate(x, axis, x.dtype)
    if exclusive:
        out = np.roll(out, 1, axis)
        first = [slice(None)] * out.ndim
        first[axis] = 0
        out[tuple(first)] = ufunc.identity
    return np.flip(out, axis) if reverse else out


def broadcast(x, shape):
    """A new array of the given shape that holds `x` broadcast to it."""
    out = np.empty(shape, np.asarray(x).dtype)
    out[...] = x
    return out


def broadcast_args(first, second):
    """The shape to which two shapes broadcast."""
    shape = np.broadcast_shapes(tuple(first.tolist()), tuple(second.tolist()))
    return np.array(shape, first.dtype)


def full(shape, value, dtype):
    """A new array of the given shape and dtype filled with `value`."""
    out = np.empty(shape, dtype)
    out[...] = value
    return out


def pad(x, widths, mode, value):
    """`numpy.pad` in TensorFlow's three modes."""
    if mode != "constant":
        return np.pad(x, widths, mode)
    shape = [size + sum(width) for size, width in zip(x.shape, widths, strict=True)]
    out = full(shape, value, x.dtype)
    inside = [
        slice(width[0], width[0] + size)
        for size, width in zip(x.shape, widths, strict=True)
    ]
    out[tuple(inside)] = x
    return out


def gather_batch(x, indices, axis, batch_dims):
    """`tf.gather` with leading batch axes that `x` and `indices` share."""
    batch = x.shape[:batch_dims]
    count = math.prod(batch)
    rest = x.shape[batch_dims:]
    local = axis - batch_dims
    flat = np.moveaxis(x.reshape((count,) + rest), local + 1, 1)
    wanted = indices.reshape((count,) + (-1,))
    picked = flat[np.arange(count)[:, None], wanted]
    # Now: batch, index axes, other axes of x. The index axes belong where `axis` was.
    inner = indices.shape[batch_dims:]
    picked = picked.reshape(batch + inner + flat.shape[2:])
    first, last = batch_dims, batch_dims + len(inner)
    order = list(range(first)) + list(range(last, last + local))
    order += list(range(first, last)) + list(range(last + local, picked.ndim))
    return np.ascontiguousarray(picked.transpose(order))


def gather_columns(x, indices):
    """`x[b, indices[b, k]]` for matrices."""
    return x[np.arange(len(x))[:, None], indices]


def gather_nd(x, indices):
    """`tf.gather_nd`: the last axis of `indices` indexes the first axes of `x`."""
    return x[tuple(np.moveaxis(indices, -1, 0))].copy()


def tensor_scatter(x, indices, updates, add):
    """`tf.tensor_scatter_nd_update` (or `_add`)."""
    out = np.array(x)
    where = tuple(np.moveaxis(indices, -1, 0))
    if add:
        np.add.at(out, where, updates)
    else:
        out[where] = updates
    return out


def top_k(x, k, dtype):
    """The `k` largest entries of the last axis and their indices, ties in order."""
    order = np.argsort(-x if x.dtype.kind == "f" else ~x, -1, kind="stable")
    order = order[..., :k]
    return np.take_along_axis(x, order, -1), order.astype(dtype)


def band_part(x, lower, upper):
    """`tf.linalg.band_part`: the central band of the last two axes."""
    rows = np.arange(x.shape[-2])[:, None]
    columns = np.arange(x.shape[-1])[None, :]
    inside = np.ones((x.shape[-2], x.shape[-1]), bool)
    if lower >= 0:
        inside &= rows - columns <= lower
    if upper >= 0:
        inside &= columns - rows <= upper
    return np.where(inside, x, np.zeros((), x.dtype))


def _namespace():
    """What the source of a program can name."""
    names = {
        name: getattr(np, name)
        for name in dir(np)
        if isinstance(getattr(np, name), np.ufunc)
    }
    for name in (
        "arange array asarray concatenate einsum empty errstate matmul ones roll tile "
        "where zeros"
    ).split():
        names[name] = getattr(np, name)
    for function in (
        erf, erfc, lgamma, softsign, divide_no_nan, multiply_no_nan, xlogy, xlog1py,
        xdivy, truncate_divide, cumulative, broadcast, broadcast_args, full, pad,
        gather_batch, gather_columns, gather_nd, tensor_scatter, top_k, band_part,
    ):  # fmt: skip
        names[function.__name__] = function
    return names


NAMESPACE = _namespace()
