"""Learning curves as a picture."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from kerasrl.plotting.curves import Band

#: Colours that differ also for those who see few (Okabe and Ito), then again.
_COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    *("#000000", "#999933"),
)
_STYLES = ("-", "--", ":", "-.")


def plot_learning_curves(
    bands: dict[str, Band],
    path: str | Path,
    ylabel: str = "episode return",
    title: str = "",
) -> Path:
    """Draw means over environment steps, with their confidence bands, into a file.

    Args:
        bands: dict from labels to `Band`.
        path: path of the file; its ending says of which kind, such as `.png`.
        ylabel: str, what the values are.
        title: str.

    Returns:
        the path.

    Raises:
        ImportError: without Matplotlib (extra `plot`).
        ValueError: if there is nothing to draw, or for a kind that is not known.

    Example:

    ```python
    curves = [([0, 1000], [20, 90]), ([0, 1000], [25, 140])]
    plot_learning_curves({"PPO": band(curves)}, "curves.png")
    ```
    """
    if not any(len(each.steps) for each in bands.values()):
        raise ValueError("There is nothing to draw: no curve has a value.")
    figures, agg = import_matplotlib()
    path = Path(path).expanduser()
    # Without a display, and without touching what the user's own figures use.
    figure = figures.Figure(figsize=(8, 5), layout="constrained")
    agg.FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for index, (label, each) in enumerate(bands.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        style = _STYLES[index // len(_COLOURS) % len(_STYLES)]
        seeds = f"{each.seeds} seed{'s' if each.seeds != 1 else ''}"
        marker = "o" if len(each.steps) == 1 else None
        axes.plot(
            *(each.steps, each.mean, style),
            color=colour,
            marker=marker,
            label=f"{label} ({seeds})",
        )
        if np.isfinite(each.low).any():
            axes.fill_between(
                each.steps, each.low, each.high, color=colour, alpha=0.2, linewidth=0
            )
    axes.set_xlabel("environment steps")
    axes.set_ylabel(ylabel)
    axes.set_title(title or "mean, and 95 % confidence of it over seeds")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Whole or not at all; the ending stays, which says of which kind it is.
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        figure.savefig(temporary, dpi=150)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def import_matplotlib() -> tuple[Any, Any]:
    """Matplotlib's figures and the canvas that draws them in memory.

    Raises:
        ImportError: that names the extra to install.
    """
    try:
        import matplotlib.backends.backend_agg as agg
        import matplotlib.figure as figures
    except ImportError as error:
        raise ImportError(
            'Pictures need Matplotlib: pip install "kerasrl[plot]" or matplotlib.'
        ) from error
    return figures, agg
