"""What compiled functions are made of."""


def ancestors(tensors):
    """Returns the set of all operations that some tensors are computed from.

    Args:
        tensors: List of tensors of one graph.
    """
    seen, stack = set(), [tensor.op for tensor in tensors]
    while stack:
        op = stack.pop()
        if op not in seen:
            seen.add(op)
            stack += [tensor.op for tensor in op.inputs]
    return seen
