"""A policy's way of acting, compiled out of TensorFlow into a NumPy program.

It is traced once, its operations are rewritten and emitted as Python source on NumPy
arrays, and what came out is compared with TensorFlow before it is used. Only NumPy is
needed to run a program; nothing else of kerasrl is used here.
"""

from kerasrl.actors.actor import Actor, build_actor
from kerasrl.actors.ir import Unsupported
from kerasrl.actors.noise import NoiseSpec
from kerasrl.actors.program import Program

__all__ = ["Actor", "NoiseSpec", "Program", "Unsupported", "build_actor"]
