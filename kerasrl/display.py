"""One readable line that says how far training or evaluation is.

In a terminal and in a notebook the line has a bar and is drawn anew in its place. In a
pipe or a file it is printed from time to time, without control characters.
"""

import collections
import math
import sys
import time

from rich.console import Console
from rich.jupyter import JupyterMixin
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

#: Seconds between two drawings.
_PERIODS = {"terminal": 0.1, "notebook": 0.5, "lines": 30.0}
#: A pipe gets a line for each such share of the whole, too.
_SHARE = 0.1
#: Seconds over which the present speed is measured.
_WINDOW = 20.0
_WIDEST = 110
_SHORTEST_BAR = 6
#: What is left out of a line that is too narrow, first to last.
_LEFT_OUT = ("length", "loss", "rate", "time", "evaluation", "return")

#: Displays that are not closed yet.
_open: list["Display"] = []


class Display:
    """Shows how far something is.

    Close it, whatever happens: a terminal's cursor is hidden until then.

    Args:
        total: Integer, how many there are to do.
        values: Function without arguments that returns what else to show, a dict of
            floats, NaN for what is not known yet. Called for each drawing.
        unit: String, what is counted.
        keep: Whether the last line stays in a terminal. Without, a pipe gets no last
            line either.

    Example:

    ```python
    with Display(100, lambda: {"return": 3.0}, "episodes") as display:
        for done in range(100):
            display.update(done + 1)
    ```
    """

    def __init__(self, total, values, unit="steps", keep=True):
        # What is printed meanwhile is passed on as it is, however long its lines are.
        console = Console(soft_wrap=True, highlight=False)
        self.total = total
        self.values = values
        self.unit = unit
        self.keep = keep
        self.done = 0
        self.is_closed = False
        self.medium = "lines"
        if console.is_jupyter:
            self.medium = "notebook"
        elif console.is_terminal and not console.is_dumb_terminal:
            self.medium = "terminal"
        self.start = time.monotonic()
        #: Moments and what was done then: the latest, the first, and those of late.
        self._latest = (self.start, 0)
        self._first = None
        self._marks = collections.deque()
        self._printed = None
        self._handle = None
        self._live = None
        self._next_done = 0
        self._next_time = self.start
        #: Widths of the count and of the bar, and of the terminal at that time.
        self.layout = (0, math.inf, None)
        if self.medium == "lines" and not keep:
            self._next_done = math.inf
            self._next_time += _PERIODS["lines"]
        if self.medium == "terminal":
            self._live = Live(
                Line(self),
                console=console,
                # Drawn from here alone: no thread of its own.
                auto_refresh=False,
                transient=not keep,
                # What goes elsewhere shall go on going there.
                redirect_stderr=sys.stderr is not None and sys.stderr.isatty(),
            )
            self._live.start(refresh=True)
        elif self.medium == "notebook":
            self._draw()
        _open.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def update(self, done):
        """Says how many are done. Cheap: most calls draw nothing."""
        now = time.monotonic()
        self.done = done
        self._latest = (now, done)
        if self._first is None:
            # What comes before is mostly compilation.
            self._first = self._latest
        if self.medium == "lines" and (self._next_done <= done < self.total):
            pass  # The last line comes with `close`.
        elif now < self._next_time:
            return
        self._next_time = now + _PERIODS[self.medium]
        if self.keep:
            self._next_done = min(done + max(_SHARE * self.total, 1), self.total)
        self._marks.append(self._latest)
        while self._marks[0][0] < now - _WINDOW and len(self._marks) > 2:
            self._marks.popleft()
        self._draw()

    def close(self):
        """Leaves the last line where it is, or removes it."""
        if self.is_closed:
            return
        self.is_closed = True
        _open.remove(self)
        if self._live is not None:
            self._live.stop()
        elif self.medium == "notebook":
            self._draw()
        elif self.keep and self._first is not None and self.done != self._printed:
            self._draw()

    def speed(self):
        """Returns how many are done in a second, NaN if nobody can tell yet."""
        now, done = self._latest
        first = self._first if self.is_closed else (self._marks or [None])[0]
        if first is not None and first[1] < done and first[0] < now:
            return (done - first[1]) / (now - first[0])
        if self.is_closed and done:
            return done / (now - self.start)
        return math.nan

    def fields(self):
        """Returns what stands beside the count, a dict from names to texts."""
        fields = {name: f"{name} {number(x)}" for name, x in self.values().items()}
        speed = self.speed()
        if math.isfinite(speed):
            fields["rate"] = f"{count(speed)} {self.unit}/s"
        if self.is_closed:
            fields["time"] = f"in {clock(time.monotonic() - self.start)}"
        elif math.isfinite(speed):
            seconds = math.ceil((self.total - self.done) / speed)
            fields["time"] = f"{clock(seconds)} left"
        return fields

    def _draw(self):
        self._printed = self.done
        if self._live is not None:
            self._live.refresh()
        elif self.medium == "lines":
            fields = ", ".join(self.fields().values())
            print(f"{self.done:,}/{self.total:,} {self.unit}: {fields}", flush=True)
        elif self._handle is None:
            from IPython.display import display

            self._handle = display(Line(self), display_id=True)
        else:
            self._handle.update(Line(self))


class Line(JupyterMixin):
    """What rich draws of a `Display`: never more than one line.

    Args:
        display: The `Display`.
    """

    def __init__(self, display):
        self.display = display

    def __rich_console__(self, console, options):
        display = self.display
        # The last column is left free: some terminals would begin a new line.
        width = min(options.max_width - 1, _WIDEST)
        gap = "  " if width >= 99 else " "
        left = f"{count(display.done)}/{count(display.total)} "
        if display.unit != "steps":
            left += f"{display.unit} "
        left_width, longest, terminal = display.layout
        if terminal != width or display.is_closed:
            left_width, longest = 0, math.inf
        left = left.ljust(left_width)
        fields = display.fields()
        for name in (*_LEFT_OUT, None):
            right = "".join(gap + text for text in fields.values())
            bar = min(width - len(left) - len(right), longest)
            if bar >= _SHORTEST_BAR:
                break
            fields.pop(name, None)
        # So that it does not move with every digit.
        display.layout = (len(left), max(bar, _SHORTEST_BAR), width)
        yield from Text(left[: max(width, 0)]).render(console)
        if bar > 0:
            filled = ProgressBar(display.total, display.done, width=bar)
            yield from console.render(filled, options)
            yield from Text(right).render(console)


def is_open():
    """Whether a line is being shown, beside which there is no room for another."""
    return bool(_open)


def number(value):
    """Returns a number in few characters.

    Example:

    ```python
    [number(x) for x in (231.42, 0.012345, -1234567.0)]  # 231.4, 0.012, -1.2e+06
    ```
    """
    if isinstance(value, int):
        return str(value)
    if math.isnan(value):
        return "-"
    size = abs(value)
    if size == 0 or size >= 1e4:
        return f"{value:.2g}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}"
    return f"{value:.3f}" if size >= 0.001 else f"{value:.0e}"


def count(value):
    """Returns how many, in few characters.

    Example:

    ```python
    [count(x) for x in (1024, 34816, 100000)]  # 1,024, 34.8k, 100k
    ```
    """
    if value < 10_000:
        return f"{value:,.0f}"
    letter = "k" if value < 999.5e3 else "M" if value < 999.5e6 else "G"
    value /= {"k": 1e3, "M": 1e6, "G": 1e9}[letter]
    text = f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
    return text.removesuffix(".0") + letter


def clock(seconds):
    """Returns seconds as `m:ss` or `h:mm:ss`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{seconds:02}"
    return f"{minutes}:{seconds:02}"
