"""NumPy forms of TensorFlow's arithmetic, activation and matrix ops.

A kernel is a function of an emitter (see `compiler.Emitter`): it writes the lines that
compute one node's outputs and binds their names. `KERNELS` maps op types to kernels.
"""

import numpy as np

from kerasrl.actors.ir import Unsupported

KERNELS = {}


def kernel(*ops):
    """Registers the decorated function for the given op types."""

    def register(function):
        for op in ops:
            KERNELS[op] = function
        return function

    return register


def scalar(e, value, dtype=None):
    """The name of a 0-d constant: the fastest scalar operand a ufunc can have."""
    return e.name(np.array(value, dtype or e.out_dtype))


def _elementwise(ufunc, risky=False):
    def emit(e):
        operands = [e.arg(i) for i in range(len(e.node.inputs))]
        if risky:
            e.risky()
        into = e.reusable(*range(len(operands)))
        e.fresh(e.apply(ufunc, *operands, into=into))

    return emit


_QUIET = {
    "Add": "add",
    "AddV2": "add",
    "Sub": "subtract",
    "Mul": "multiply",
    "Maximum": "maximum",
    "Minimum": "minimum",
    "Neg": "negative",
    "Abs": "absolute",
    "Square": "square",
    "Sign": "sign",
    "Floor": "floor",
    "Ceil": "ceil",
    "Rint": "rint",
    "Round": "rint",
    "Tanh": "tanh",
    "Sin": "sin",
    "Cos": "cos",
    "Tan": "tan",
    "Atan": "arctan",
    "Atan2": "arctan2",
    "Asinh": "arcsinh",
    "Equal": "equal",
    "NotEqual": "not_equal",
    "Less": "less",
    "LessEqual": "less_equal",
    "Greater": "greater",
    "GreaterEqual": "greater_equal",
    "LogicalAnd": "logical_and",
    "LogicalOr": "logical_or",
    "LogicalNot": "logical_not",
    "BitwiseAnd": "bitwise_and",
    "BitwiseOr": "bitwise_or",
    "BitwiseXor": "bitwise_xor",
    "Invert": "invert",
    "LeftShift": "left_shift",
    "RightShift": "right_shift",
    "IsNan": "isnan",
    "IsInf": "isinf",
    "IsFinite": "isfinite",
    "NextAfter": "nextafter",
}
_RISKY = {
    "RealDiv": "divide",
    "FloorDiv": "floor_divide",
    "FloorMod": "remainder",
    "TruncateMod": "fmod",
    "Exp": "exp",
    "Expm1": "expm1",
    "Log": "log",
    "Log1p": "log1p",
    "Sqrt": "sqrt",
    "Inv": "reciprocal",
    "Reciprocal": "reciprocal",
    "Asin": "arcsin",
    "Acos": "arccos",
    "Sinh": "sinh",
    "Cosh": "cosh",
    "Acosh": "arccosh",
    "Atanh": "arctanh",
}
for _op, _ufunc in _QUIET.items():
    KERNELS[_op] = _elementwise(_ufunc)
for _op, _ufunc in _RISKY.items():
    KERNELS[_op] = _elementwise(_ufunc, risky=True)

# Functions of `numerics`: one call, a new array.
for _op, _helper in {
    "Erf": "erf",
    "Erfc": "erfc",
    "DivNoNan": "divide_no_nan",
    "MulNoNan": "multiply_no_nan",
    "Xlogy": "xlogy",
    "Xlog1py": "xlog1py",
    "Xdivy": "xdivy",
    "Softsign": "softsign",
    "Lgamma": "lgamma",
    "TruncateDiv": "truncate_divide",
}.items():

    def _helper_kernel(e, helper=_helper):
        e.risky()
        operands = ", ".join(e.arg(i) for i in range(len(e.node.inputs)))
        e.fresh(e.assign(f"{helper}({operands})"))

    KERNELS[_op] = _helper_kernel


@kernel("Pow")
def _power(e):
    exponent = e.const(1)
    into = e.reusable(0)
    x = e.arg(0)
    if exponent is not None and exponent.ndim == 0 and e.out_dtype.kind == "f":
        shortcuts = {2.0: "square", 0.5: "sqrt", -1.0: "reciprocal"}
        exponent = float(exponent)
        if exponent in shortcuts:
            e.risky()
            return e.fresh(e.apply(shortcuts[exponent], x, into=into))
        if exponent == 3.0:
            e.risky()
            cube = e.apply("square", x)
            return e.fresh(e.apply("multiply", cube, x, into=cube))
    e.risky()
    return e.fresh(e.apply("power", x, e.arg(1), into=e.reusable(0, 1)))


@kernel("Rsqrt")
def _rsqrt(e):
    e.risky()
    root = e.apply("sqrt", e.arg(0), into=e.reusable(0))
    e.fresh(e.apply("reciprocal", root, into=root))


@kernel("SquaredDifference")
def _squared_difference(e):
    t = e.apply("subtract", e.arg(0), e.arg(1), into=e.reusable(0, 1))
    e.fresh(e.apply("multiply", t, t, into=t))


@kernel("AddN")
def _add_n(e):
    operands = [e.arg(i) for i in range(len(e.node.inputs))]
    if len(operands) == 1:
        return e.fresh(e.assign(f"{operands[0]} + {scalar(e, 0)}"))
    t = e.apply("add", *operands[:2], into=e.reusable(0, 1))
    for operand in operands[2:]:
        t = e.apply("add", t, operand, into=t)
    return e.fresh(t)


@kernel("ClipByValue")
def _clip(e):
    t = e.apply("minimum", e.arg(0), e.arg(2), into=e.reusable(0))
    e.fresh(e.apply("maximum", t, e.arg(1), into=t))


@kernel("Sigmoid")
def _sigmoid(e):
    e.risky()
    t = e.apply("negative", e.arg(0), into=e.reusable(0))
    t = e.apply("exp", t, into=t)
    t = e.apply("add", t, scalar(e, 1), into=t)
    e.fresh(e.apply("reciprocal", t, into=t))


@kernel("Relu")
def _relu(e):
    e.fresh(e.apply("maximum", e.arg(0), scalar(e, 0), into=e.reusable(0)))


@kernel("Relu6")
def _relu6(e):
    t = e.apply("maximum", e.arg(0), scalar(e, 0), into=e.reusable(0))
    e.fresh(e.apply("minimum", t, scalar(e, 6), into=t))


@kernel("LeakyRelu")
def _leaky_relu(e):
    alpha = e.attr("alpha", 0.2)
    x = e.arg(0)
    t = e.apply("multiply", x, scalar(e, alpha))
    e.fresh(e.apply("maximum" if alpha <= 1 else "minimum", x, t, into=t))


@kernel("Elu")
def _elu(e):
    _scaled_elu(e, 1.0, 1.0)


@kernel("Selu")
def _selu(e):
    _scaled_elu(e, 1.0507009873554805, 1.7580993408473766)


def _scaled_elu(e, positive, negative):
    x = e.arg(0)
    t = e.apply("minimum", x, scalar(e, 0))
    t = e.apply("expm1", t, into=t)
    if negative != 1.0:
        t = e.apply("multiply", t, scalar(e, negative), into=t)
    u = e.apply("maximum", x, scalar(e, 0), into=e.reusable(0))
    if positive != 1.0:
        u = e.apply("multiply", u, scalar(e, positive), into=u)
    e.fresh(e.apply("add", u, t, into=u))


@kernel("Softplus")
def _softplus(e):
    e.risky()
    e.fresh(e.apply("logaddexp", e.arg(0), scalar(e, 0), into=e.reusable(0)))


@kernel("Softmax")
def _softmax(e):
    e.risky()
    x = e.arg(0)
    most = e.assign(f"maximum.reduce({x}, -1, None, None, True)")
    t = e.apply("subtract", x, most, into=e.reusable(0))
    t = e.apply("exp", t, into=t)
    total = e.assign(f"add.reduce({t}, -1, None, None, True)")
    e.fresh(e.apply("divide", t, total, into=t))


@kernel("LogSoftmax")
def _log_softmax(e):
    e.risky()
    x = e.arg(0)
    most = e.assign(f"maximum.reduce({x}, -1, None, None, True)")
    t = e.apply("subtract", x, most, into=e.reusable(0))
    total = e.assign(f"log(add.reduce(exp({t}), -1, None, None, True))")
    e.fresh(e.apply("subtract", t, total, into=t))


# -- reductions ------------------------------------------------------------------------


def _axes(e, index):
    axes = [int(a) for a in np.atleast_1d(e.need(index, "the reduction axes"))]
    rank = e.rank(0)
    return sorted({axis % rank for axis in axes} if rank else set())


def _axes_text(axes):
    return str(axes[0]) if len(axes) == 1 else str(tuple(axes))


def _keep(e):
    return bool(e.attr("keep_dims", False))


def _reduction(ufunc):
    def emit(e):
        axes = _axes(e, 1)
        if not axes:
            return e.fresh(e.assign(f"{e.arg(0)}.copy()"))
        dtype = "None"
        if e.out_dtype.kind in "iu" and ufunc in ("add", "multiply"):
            dtype = e.name(e.out_dtype)
        return e.fresh(
            e.assign(
                f"{ufunc}.reduce({e.arg(0)}, {_axes_text(axes)}, {dtype}, None, "
                f"{_keep(e)})"
            )
        )

    return emit


for _op, _ufunc in {
    "Sum": "add",
    "Prod": "multiply",
    "Max": "maximum",
    "Min": "minimum",
    "All": "logical_and",
    "Any": "logical_or",
}.items():
    KERNELS[_op] = _reduction(_ufunc)


@kernel("Mean")
def _mean(e):
    axes = _axes(e, 1)
    if not axes:
        return e.fresh(e.assign(f"{e.arg(0)}.copy()"))
    if e.out_dtype.kind != "f":
        raise Unsupported("a mean of integers")
    if e.out_dtype.itemsize < 4:
        return e.fresh(
            e.assign(f"{e.arg(0)}.mean({_axes_text(axes)}, keepdims={_keep(e)})")
        )
    t = e.assign(f"add.reduce({e.arg(0)}, {_axes_text(axes)}, None, None, {_keep(e)})")
    sizes = [e.size(0, axis) for axis in axes]
    if all(size.isdigit() for size in sizes):
        inverse = 1.0 / max(1, int(np.prod([int(size) for size in sizes])))
        return e.fresh(e.apply("multiply", t, scalar(e, inverse), into=t))
    e.risky()
    return e.fresh(e.apply("divide", t, f"({' * '.join(sizes)})", into=t))


@kernel("EuclideanNorm")
def _euclidean_norm(e):
    axes = _axes(e, 1)
    x = e.arg(0)
    if not axes:
        return e.fresh(e.assign(f"absolute({x})"))
    t = e.assign(f"add.reduce(square({x}), {_axes_text(axes)}, None, None, {_keep(e)})")
    return e.fresh(e.apply("sqrt", t, into=t))


@kernel("L2Loss")
def _l2_loss(e):
    e.fresh(e.assign(f"add.reduce(square({e.arg(0)}), None) * {scalar(e, 0.5)}"))


@kernel("ArgMax", "ArgMin")
def _arg_extreme(e):
    axis = int(e.need(1, "the axis"))
    method = "argmax" if e.node.op == "ArgMax" else "argmin"
    text = f"{e.arg(0)}.{method}({axis})"
    if e.out_dtype != np.intp:
        text += f".astype({e.name(e.out_dtype)})"
    e.fresh(e.assign(text))


@kernel("Cumsum", "Cumprod")
def _cumulative(e):
    ufunc = "add" if e.node.op == "Cumsum" else "multiply"
    axis = int(e.need(1, "the axis")) % e.rank(0)
    exclusive, reverse = e.attr("exclusive", False), e.attr("reverse", False)
    if exclusive or reverse:
        text = (
            f"cumulative({ufunc}, {e.arg(0)}, {axis}, {bool(exclusive)}, "
            f"{bool(reverse)})"
        )
    else:
        text = f"{ufunc}.accumulate({e.arg(0)}, {axis}, {e.name(e.out_dtype)})"
    e.fresh(e.assign(text))


# -- matrices --------------------------------------------------------------------------


@kernel("MatMul")
def _matmul(e):
    a, b = e.arg(0), e.arg(1)
    if e.attr("transpose_a", False):
        a += ".T"
    if e.attr("transpose_b", False):
        b += ".T"
    e.fresh(e.assign(f"{a}.dot({b})"))


@kernel("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
def _batch_matmul(e):
    if e.out_dtype.kind == "c":
        raise Unsupported("a product of complex matrices")
    a, b = e.arg(0), e.arg(1)
    flat = e.rank(1) == 2 and not e.attr("adj_x", False)
    if e.attr("adj_x", False):
        a += ".swapaxes(-1, -2)"
    if e.attr("adj_y", False):
        b += ".swapaxes(-1, -2)"
    e.fresh(e.assign(f"{a}.dot({b})" if flat else f"matmul({a}, {b})"))


@kernel("BiasAdd")
def _bias_add(e):
    if e.attr("data_format", b"NHWC") != b"NHWC" and e.rank(0) > 2:
        raise Unsupported("BiasAdd with channels first")
    e.fresh(e.apply("add", e.arg(0), e.arg(1), into=e.reusable(0)))


@kernel("Einsum")
def _einsum(e):
    equation = e.attr("equation", b"").decode()
    operands = [e.arg(i) for i in range(len(e.node.inputs))]
    product = None
    if len(operands) == 2 and "." not in equation:
        product = _einsum_as_product(e, equation, *operands)
    if product is None:
        product = f"einsum({equation!r}, {', '.join(operands)})"
    e.fresh(e.assign(product))


def _einsum_as_product(e, equation, a, b):
    """Text of a matrix product that computes `equation`, or None."""
    sources, target = equation.replace(" ", "").split("->")
    left, right = sources.split(",")
    if any(len(set(part)) != len(part) for part in (left, right, target)):
        return None
    batch = [c for c in left if c in right and c in target]
    inner = [c for c in left if c in right and c not in target]
    rows = [c for c in left if c not in right]
    columns = [c for c in right if c not in left]
    if not inner or any(c not in target for c in rows + columns):
        return None
    sizes = {}
    for i, letters in enumerate((left, right)):
        for axis, letter in enumerate(letters):
            sizes[letter] = e.size(i, axis)

    def arranged(name, letters, wanted, groups):
        order = [letters.index(c) for c in wanted]
        if order != list(range(len(order))):
            name += f".transpose({', '.join(map(str, order))})"
        if all(len(group) == 1 for group in groups):
            return name
        dims = [sizes[c] for c in batch]
        dims += [" * ".join([sizes[c] for c in group] or ["1"]) for group in groups]
        return f"{name}.reshape({', '.join(dims)})"

    a = arranged(a, left, batch + rows + inner, (rows, inner))
    b = arranged(b, right, batch + inner + columns, (inner, columns))
    product = f"matmul({a}, {b})" if batch else f"{a}.dot({b})"
    made = batch + rows + columns
    if len(rows) != 1 or len(columns) != 1:
        if not made:
            return f"{product}.reshape(())"
        product += f".reshape({', '.join(sizes[c] for c in made)})"
    order = [made.index(c) for c in target]
    if order != list(range(len(order))):
        product += f".transpose({', '.join(map(str, order))})"
    return product
