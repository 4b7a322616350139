"""NumPy forms of TensorFlow's ops on shapes, slices, indices and selections."""

import numpy as np

from kerasrl.actors.ir import Unsupported
from kerasrl.actors.kernels import kernel


@kernel("Cast")
def _cast(e):
    if e.dtype(0).kind == "f" and e.out_dtype.kind in "iu":
        e.risky()
    e.fresh(e.assign(f"{e.arg(0)}.astype({e.name(e.out_dtype)})"))


@kernel("Bitcast")
def _bitcast(e):
    if e.dtype(0).itemsize != e.out_dtype.itemsize:
        raise Unsupported("Bitcast between dtypes of different sizes")
    e.view(e.assign(f"{e.arg(0)}.view({e.name(e.out_dtype)})"), 0)


# -- shapes ----------------------------------------------------------------------------


@kernel("Shape")
def _shape(e):
    e.fresh(e.assign(f"array({e.arg(0)}.shape, {e.name(e.out_dtype)})"))


@kernel("ShapeN")
def _shape_n(e):
    dtype = e.name(e.out_dtype)
    for i in range(len(e.node.inputs)):
        e.fresh(e.assign(f"array({e.arg(i)}.shape, {dtype})"), i)


@kernel("Size")
def _size(e):
    e.fresh(e.assign(f"array({e.arg(0)}.size, {e.name(e.out_dtype)})"))


@kernel("Rank")
def _rank(e):
    e.fresh(e.assign(f"array({e.arg(0)}.ndim, {e.name(e.out_dtype)})"))


@kernel("BroadcastArgs")
def _broadcast_args(e):
    e.fresh(e.assign(f"broadcast_args({e.arg(0)}, {e.arg(1)})"))


@kernel("Reshape")
def _reshape(e):
    if e.keeps_shape():
        return e.view(e.arg(0), 0)
    shape = e.known_shape() or e.ints(1)
    e.view(e.assign(f"{e.arg(0)}.reshape({shape})"), 0)


@kernel("Squeeze")
def _squeeze(e):
    shape = e.known_shape()
    if shape is not None:
        return e.view(e.assign(f"{e.arg(0)}.reshape({shape})"), 0)
    axes = tuple(e.attr("squeeze_dims", ()))
    return e.view(e.assign(f"{e.arg(0)}.squeeze({axes if axes else ''})"), 0)


@kernel("ExpandDims")
def _expand_dims(e):
    rank = e.rank(0)
    axis = int(e.need(1, "the axis")) % (rank + 1)
    if rank == 0:
        return e.fresh(e.assign(f"array([{e.arg(0)}])"))
    index = ", ".join([":"] * axis + ["None"])
    return e.view(e.assign(f"{e.arg(0)}[{index}]"), 0)


@kernel("Transpose")
def _transpose(e):
    order = [int(axis) for axis in e.need(1, "the permutation")]
    if order == list(range(len(order))):
        return e.view(e.arg(0), 0)
    return e.view(e.assign(f"{e.arg(0)}.transpose({str(order)[1:-1]})"), 0)


@kernel("BroadcastTo")
def _broadcast_to(e):
    if e.keeps_shape():
        return e.view(e.arg(0), 0)
    shape = e.known_shape() or e.ints(1)
    e.fresh(e.assign(f"broadcast({e.arg(0)}, {shape})"))


@kernel("Tile")
def _tile(e):
    multiples = e.const(1)
    if multiples is not None and not multiples.size:
        return e.view(e.arg(0), 0)
    shape = e.known_shape()
    if shape is not None:
        sizes = e.shape(0)
        ones = [
            size == 1 or (multiples is not None and multiples[axis] == 1)
            for axis, size in enumerate(sizes)
        ]
        if all(ones):
            return e.fresh(e.assign(f"broadcast({e.arg(0)}, {shape})"))
    return e.fresh(e.assign(f"tile({e.arg(0)}, {e.ints(1)})"))


@kernel("Fill")
def _fill(e):
    shape = e.known_shape() or e.ints(0)
    e.fresh(e.assign(f"full({shape}, {e.arg(1)}, {e.name(e.out_dtype)})"))


@kernel("ZerosLike", "OnesLike")
def _like(e):
    function = "zeros" if e.node.op == "ZerosLike" else "ones"
    shape = e.known_shape() or f"{e.arg(0)}.shape"
    e.fresh(e.assign(f"{function}({shape}, {e.name(e.out_dtype)})"))


@kernel("Range")
def _range(e):
    bounds = ", ".join(e.number(i) for i in range(3))
    e.fresh(e.assign(f"arange({bounds}, dtype={e.name(e.out_dtype)})"))


@kernel("Pad", "PadV2", "MirrorPad")
def _pad(e):
    widths = e.need(1, "the paddings").tolist()
    mode = e.attr("mode", b"CONSTANT").decode().lower()
    value = e.arg(2) if len(e.node.inputs) > 2 else "0"
    e.fresh(e.assign(f"pad({e.arg(0)}, {widths}, {mode!r}, {value})"))


# -- slices ----------------------------------------------------------------------------


def _index(parts):
    return ", ".join(parts)


@kernel("StridedSlice")
def _strided_slice(e):
    if len(e.node.inputs) != 4:
        raise Unsupported("StridedSlice without strides")
    strides = e.need(3, "the strides")
    count = len(strides)
    begin, end = e.int_items(1, count), e.int_items(2, count)

    def bit(name, i):
        return bool((e.attr(name, 0) >> i) & 1)

    parts = []
    for i in range(count):
        if bit("ellipsis_mask", i):
            parts.append("...")
        elif bit("new_axis_mask", i):
            parts.append("None")
        elif bit("shrink_axis_mask", i):
            parts.append(begin[i])
        else:
            first = "" if bit("begin_mask", i) else begin[i]
            last = "" if bit("end_mask", i) else end[i]
            stride = int(strides[i])
            parts.append(f"{first}:{last}" + (f":{stride}" if stride != 1 else ""))
    while len(parts) > 1 and parts[-1] in (":", "..."):
        parts.pop()
    name = e.assign(f"{e.arg(0)}[{_index(parts)}]")
    e.view(name, 0)


@kernel("Cut")
def _cut(e):
    # Not an op of TensorFlow: part of the last axis, see `rewrites.merge_gates`.
    start, stop = e.attr("start"), e.attr("stop")
    e.view(e.assign(f"{e.arg(0)}[..., {start}:{stop}]"), 0)


@kernel("Slice")
def _slice(e):
    rank = e.rank(0)
    begin, size = e.int_items(1, rank), e.int_items(2, rank)
    parts = []
    for first, length in zip(begin, size, strict=True):
        if length == "-1":
            parts.append(":" if first == "0" else f"{first}:")
        elif first == "0":
            parts.append(f":{length}")
        else:
            parts.append(f"{first}:{first} + {length}")
    if not parts:
        return e.view(e.arg(0), 0)
    while len(parts) > 1 and parts[-1] == ":":
        parts.pop()
    return e.view(e.assign(f"{e.arg(0)}[{_index(parts)}]"), 0)


@kernel("ReverseV2")
def _reverse(e):
    rank = e.rank(0)
    axes = {int(axis) % rank for axis in e.need(1, "the axes")}
    parts = ["::-1" if axis in axes else ":" for axis in range(rank)]
    e.view(e.assign(f"{e.arg(0)}[{_index(parts)}]"), 0)


@kernel("Roll")
def _roll(e):
    shift = np.atleast_1d(e.need(1, "the shift")).tolist()
    axes = np.atleast_1d(e.need(2, "the axis")).tolist()
    e.fresh(e.assign(f"roll({e.arg(0)}, {shift}, {axes})"))


def _pieces(e, data, axis, bounds):
    lead = ":, " * axis
    for k, (first, last) in enumerate(bounds):
        # A piece that no one reads would keep its line for nothing.
        if e.is_used(k):
            e.view(e.assign(f"{e.arg(data)}[{lead}{first}:{last}]"), data, k)


@kernel("Split")
def _split(e):
    axis = int(e.need(0, "the axis")) % e.rank(1)
    pieces = len(e.node.outputs)
    size = e.size(1, axis)
    if size.isdigit():
        width = int(size) // pieces
        bounds = [(k * width, (k + 1) * width) for k in range(pieces)]
    else:
        width = f"{size} // {pieces}"
        bounds = [(f"{k} * ({width})", f"{k + 1} * ({width})") for k in range(pieces)]
    _pieces(e, 1, axis, bounds)


@kernel("SplitV")
def _split_v(e):
    axis = int(e.need(2, "the axis")) % e.rank(0)
    sizes = [int(size) for size in e.need(1, "the sizes")]
    if -1 in sizes:
        total = e.size(0, axis)
        if not total.isdigit():
            raise Unsupported("SplitV of the batch axis")
        sizes[sizes.index(-1)] = int(total) - (sum(sizes) + 1)
    ends = np.cumsum(sizes).tolist()
    _pieces(e, 0, axis, zip([0] + ends[:-1], ends, strict=True))


@kernel("Unpack")
def _unpack(e):
    axis = e.attr("axis", 0) % e.rank(0)
    lead = ":, " * axis
    for k in range(len(e.node.outputs)):
        if e.is_used(k):
            e.view(e.assign(f"{e.arg(0)}[{lead}{k}]"), 0, k)


@kernel("Pack")
def _pack(e):
    operands = [e.arg(i) for i in range(len(e.node.inputs))]
    if e.rank(0) == 0:
        text = f"array([{', '.join(operands)}], {e.name(e.out_dtype)})"
        return e.fresh(e.assign(text))
    axis = e.attr("axis", 0) % (e.rank(0) + 1)
    index = ":, " * axis + "None"
    parts = ", ".join(f"{operand}[{index}]" for operand in operands)
    return e.fresh(e.assign(f"concatenate(({parts},), {axis})"))


@kernel("ConcatV2")
def _concat(e):
    count = len(e.node.inputs) - 1
    axis = int(e.need(count, "the axis")) % e.rank(0)
    parts = ", ".join(e.arg(i) for i in range(count))
    e.fresh(e.assign(f"concatenate(({parts},), {axis})"))


# -- indices and selections ------------------------------------------------------------


@kernel("GatherV2")
def _gather(e):
    axis = int(e.need(2, "the axis")) % e.rank(0)
    batch_dims = e.attr("batch_dims", 0) % max(1, e.rank(1) + 1)
    if batch_dims == axis == 1 and e.rank(0) == e.rank(1) == 2:
        text = f"gather_columns({e.arg(0)}, {e.arg(1)})"
    elif batch_dims:
        text = f"gather_batch({e.arg(0)}, {e.arg(1)}, {axis}, {batch_dims})"
    else:
        text = f"{e.arg(0)}.take({e.arg(1)}, {axis})"
    e.fresh(e.assign(text))


@kernel("Gather")
def _gather_first(e):
    e.fresh(e.assign(f"{e.arg(0)}.take({e.arg(1)}, 0)"))


@kernel("GatherNd")
def _gather_nd(e):
    e.fresh(e.assign(f"gather_nd({e.arg(0)}, {e.arg(1)})"))


@kernel("OneHot")
def _one_hot(e):
    depth = int(e.need(1, "the depth"))
    on, off = e.need(2, "the on value"), e.need(3, "the off value")
    rank = e.rank(0)
    axis = e.attr("axis", -1) % (rank + 1)
    classes = np.arange(depth, dtype=e.dtype(0))
    classes = classes.reshape((depth,) + (1,) * (rank - axis))
    index = ", ".join([":"] * axis + ["None"])
    x = e.arg(0) if rank == 0 else f"{e.arg(0)}[{index}]"
    text = f"equal({x}, {e.name(classes)})"
    if on == 1 and off == 0 and e.out_dtype.kind == "b":
        e.fresh(e.assign(text))
    elif on == 1 and off == 0:
        e.fresh(e.assign(f"{text}.astype({e.name(e.out_dtype)})"))
    else:
        on, off = (e.name(np.array(v, e.out_dtype)) for v in (on, off))
        e.fresh(e.assign(f"where({text}, {on}, {off})"))


@kernel("SelectV2")
def _select(e):
    e.fresh(e.assign(f"where({e.arg(0)}, {e.arg(1)}, {e.arg(2)})"))


@kernel("Select")
def _select_rows(e):
    if e.rank(0) not in (0, e.rank(1)):
        raise Unsupported("Select by a vector of conditions")
    e.fresh(e.assign(f"where({e.arg(0)}, {e.arg(1)}, {e.arg(2)})"))


@kernel("TopKV2")
def _top_k(e):
    k = e.number(1)
    values, indices = e.new(), e.new()
    dtype = e.name(e.output_dtype(1))
    e.line(f"{values}, {indices} = top_k({e.arg(0)}, {k}, {dtype})")
    e.fresh(values, 0)
    e.fresh(indices, 1)


@kernel("LowerBound", "UpperBound")
def _bound(e):
    less = "less" if e.node.op == "LowerBound" else "less_equal"
    text = f"add.reduce({less}({e.arg(0)}[:, None], {e.arg(1)}[:, :, None]), -1)"
    e.fresh(e.assign(f"{text}.astype({e.name(e.out_dtype)})"))


@kernel("InvertPermutation")
def _invert_permutation(e):
    e.fresh(e.assign(f"{e.arg(0)}.argsort().astype({e.name(e.out_dtype)})"))


@kernel("MatrixBandPart")
def _band_part(e):
    e.fresh(e.assign(f"band_part({e.arg(0)}, {e.number(1)}, {e.number(2)})"))


@kernel("MatrixDiagPart", "MatrixDiagPartV2", "MatrixDiagPartV3")
def _diagonal_part(e):
    if len(e.node.inputs) > 1 and np.any(e.need(1, "k") != 0):
        raise Unsupported("MatrixDiagPart beside the main diagonal")
    e.fresh(e.assign(f"{e.arg(0)}.diagonal(0, -2, -1).copy()"))


@kernel("TensorScatterUpdate", "TensorScatterAdd")
def _tensor_scatter(e):
    add = e.node.op == "TensorScatterAdd"
    operands = ", ".join(e.arg(i) for i in range(3))
    e.fresh(e.assign(f"tensor_scatter({operands}, {add})"))


@kernel("ScatterNd")
def _scatter_nd(e):
    shape = e.known_shape() or e.ints(2)
    e.fresh(
        e.assign(
            f"tensor_scatter(zeros({shape}, {e.name(e.out_dtype)}), {e.arg(0)}, "
            f"{e.arg(1)}, True)"
        )
    )
