"""What environments say besides rewards: columns that come with the first of it."""

import warnings

import numpy as np

from kerasrl.replay import memory
from kerasrl.replay.columns import Column
from kerasrl.replay.streams import STEP

_PREFIX = "infos."


class InfoColumns:
    """Numbers of the infos of steps, float32, NaN where there is none.

    What environments say is known when they have said it. A key has a column from the
    first rollout on that has numbers or nothing for it; steps from before have NaN. Its
    shape is that of the first number. Keys with other values, such as texts, have none.

    Args:
        kinds: uint8 array over rows; see `streams`.
        directory: Path or `None`; see `ReplayBuffer`.
    """

    def __init__(self, kinds, directory=None):
        self._kinds = kinds
        self._directory = directory
        self._columns = {}
        self._warned = set()

    @property
    def arrays(self):
        """Arrays over rows, by the names of the columns."""
        return {column.name: column.array for column in self._columns.values()}

    def flatten(self, infos, lead):
        """Arrays of numbers, of a shape that the columns have or will have.

        Args:
            infos: Dict of arrays `[*lead, ...]`, as of a `Rollout`.
            lead: Tuple, the leading shape.

        Returns:
            Dict of float32 arrays `[*lead, ...]`, one for each key that is kept.
        """
        if not (infos or self._columns):
            return {}
        found = {}
        for name in {**self._columns, **infos}:
            values = np.asarray(infos.get(name, np.full(lead, np.nan)))
            if values.shape[:2] != lead:
                raise ValueError(
                    f"The rollout's infos {name!r} do not fit. Received: shape "
                    f"{values.shape}. Expected: {lead} at first, as of its rewards."
                )
            if name in self._columns:
                found[name] = self._fitted(name, values, lead)
            elif values.dtype.kind in "biuf":
                found[name] = values.astype(np.float32)
        return found

    def write(self, rows, values):
        """Stores what `flatten` returned.

        Args:
            rows: Integer array.
            values: Dict of float32 arrays `[*rows.shape, ...]`.
        """
        for name, numbers in values.items():
            shape = numbers.shape[rows.ndim :]
            column = self._columns.get(name)
            if column is None or column.shape != shape:
                column = self._make(name, shape)
                column.array[(self._kinds & STEP) != 0] = np.nan
            column.write(rows, numbers)

    def read(self, rows):
        """Dict of arrays `[*rows.shape, ...]`, new."""
        return {name: column.read(rows) for name, column in self._columns.items()}

    def copy_layout(self, arrays):
        """Infos with the columns of some that were saved, and nothing in them.

        Args:
            arrays: Dict of arrays `[B, filled, ...]` by names, others included.

        Returns:
            `InfoColumns`.
        """
        made = InfoColumns(self._kinds, self._directory)
        for name, array in arrays.items():
            if name.startswith(_PREFIX):
                made._make(name.removeprefix(_PREFIX), np.shape(array)[2:])
        return made

    def _make(self, name, shape):
        column = Column(_PREFIX + name, shape, np.float32)
        layout = {column.name: ((len(self._kinds), *shape), np.float32)}
        column.array = memory.allocate(layout, self._directory)[column.name]
        self._columns[name] = column
        return column

    def _fitted(self, name, values, lead):
        """Numbers of the shape of a column, NaN for all else."""
        column = self._columns[name]
        is_number = values.dtype.kind in "biuf"
        if is_number and values.shape[2:] == column.shape:
            return values.astype(np.float32)
        fitted = np.full((*lead, *column.shape), np.nan, np.float32)
        if is_number:
            if np.isnan(values).all():
                return fitted
            if not self._has_numbers(column):
                return values.astype(np.float32)
            self._warn(name, values[0, 0])
            return fitted
        for place in np.ndindex(lead):
            value = values[place]
            array = np.asarray(value)
            if array.dtype.kind in "biuf" and array.shape == column.shape:
                fitted[place] = array
            elif value is not None:
                self._warn(name, value)
        return fitted

    def _has_numbers(self, column):
        steps = (self._kinds & STEP) != 0
        return not np.isnan(column.array[steps]).all()

    def _warn(self, name, value):
        if name in self._warned:
            return
        self._warned.add(name)
        shape = self._columns[name].shape
        warnings.warn(
            f"Infos have {name}={value!r:.100}, where the replay buffer keeps numbers "
            f"of shape {shape}, as at first. It keeps NaN instead.",
            stacklevel=2,
        )
