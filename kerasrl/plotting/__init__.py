"""Learning curves: means over seeds with confidence bands, as numbers and as pictures.

Runs report at different environment steps. Here they are put on common ones, and it is
said how sure their mean is. Matplotlib (extra `plot`) is imported where it draws.
"""

from kerasrl.plotting.curves import Band, band, on_common_steps
from kerasrl.plotting.pictures import plot_learning_curves

__all__ = ["Band", "band", "on_common_steps", "plot_learning_curves"]
