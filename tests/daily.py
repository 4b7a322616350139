"""What is tried every day. Light: workers import it with the tests they are from."""

import pytest


def among(names, daily):
    """Names as parameters: those that are not for every day are marked `slow`."""
    slow = pytest.mark.slow
    return [n if n in daily else pytest.param(n, marks=slow) for n in names]
