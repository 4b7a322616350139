"""Rewards for what a model of the environment did not foresee."""

import dataclasses
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import optree
from gymnasium import spaces as gym_spaces

from kerasrl import checks, spaces
from kerasrl.callbacks.callback import Callback

#: Names of what files have of the model and of its optimizer begin with these.
_STORED = ("model.", "optimizer.")


class Curiosity(Callback):
    """Adds to rewards how badly a learned model foresaw what followed.

    A network predicts by how much an observation changes, from it and the action. With
    changes divided by their running standard deviation, the reward of a step becomes

        reward + scale * mean((predicted change - change)^2)

    where the mean is near 1 for a model that knows nothing, and falls where it has
    been often. After that the model learns from the rollout. What an episode is logged
    to have returned stays without it. Where the next observation is not known, as after
    a termination, nothing is added.

    Papers: Pathak et al. (2017), https://arxiv.org/abs/1705.05363, here without the
    inverse model, in the space of observations or of `features`; Burda et al. (2018),
    https://arxiv.org/abs/1808.04355.

    Adds to the epoch's logs `intrinsic_reward`, the mean of what was added, and
    `curiosity_error`, the mean of the squares; NaN without a rollout. A model lives as
    long as its callback: hand the same object to the next `fit`. It is in no checkpoint
    of the agent: `save` it beside one, and `load` it to go on exactly. Each of several
    ranks has a model of its own.

    Args:
        scale: float, weight of what is added.
        hidden_units: widths of the dense layers of the model.
        learning_rate: float, of Adam.
        batch_size: int, steps of one gradient step of the model.
        clip: float, the largest mean of squares.
        features: function of a tree of observations `[N, ...]` that returns an array
            `[N, F]`, what is to be foreseen. `None` takes numbers as they are and
            choices as one-hot vectors, and refuses images.
        seed: int or None, of the model.

    Raises:
        ValueError: if a number is out of range; in `fit`, if observations are images.

    Example:

    ```python
    curiosity = kerasrl.callbacks.Curiosity(scale=0.1)
    kerasrl.PPO().fit("MountainCar-v0", steps=100_000, callbacks=[curiosity])
    ```
    """

    def __init__(
        self,
        scale: float = 0.1,
        hidden_units: Any = (64, 64),
        learning_rate: float = 1e-3,
        batch_size: int = 256,
        clip: float = 5.0,
        features: Callable[[Any], Any] | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.scale = checks.positive("scale", scale)
        self.hidden_units = checks.units("hidden_units", hidden_units) or ()
        self.learning_rate = checks.positive("learning_rate", learning_rate)
        self.batch_size = checks.positive_integer("batch_size", batch_size)
        self.clip = checks.positive("clip", clip)
        self.features = features
        self.seed = checks.seed(seed)
        self.foreseer: Any = None
        self._rng = np.random.default_rng(self.seed)
        self._changes, self._seen = _Moments(), _Moments()
        self._added = np.zeros(3)  # Sums of rewards and errors, and their number.

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        policy = self.agent.policy
        if getattr(policy, "action_space", None) is None:
            raise ValueError(
                f"Curiosity foresees what one agent observes, and was given to a "
                f"{type(self.agent).__name__}, of several policies. Leave it out, or "
                "train a single agent."
            )
        self._action_space = spaces.emitted(policy.action_space)
        self._observation_space = policy.observation_space
        if self.features is None:
            for name, leaf in spaces.named_leaves(self._observation_space):
                if len(leaf.shape or ()) == 3:
                    raise ValueError(
                        f"Curiosity foresees numbers, and {name} is an image: {leaf}. "
                        "Give it features, a function that makes vectors of them."
                    )

    def on_rollout_end(self, rollout: Any) -> Any:
        steps = _steps(rollout)
        if not steps["is_known"].any():
            return rollout
        now, following = (
            self._vectors(steps[name]) for name in ("observations", "following")
        )
        actions = _flat(self._action_space, steps["actions"])
        is_known = steps["is_known"]
        change = following - now
        self._changes.add(change[is_known])
        self._seen.add(now[is_known])
        inputs = np.concatenate(
            [(now - self._seen.mean) / self._seen.deviation, actions], axis=-1
        ).astype(np.float32)
        targets = (change / self._changes.deviation).astype(np.float32)
        if self.foreseer is None:
            sizes = inputs.shape[1], targets.shape[1]
            self.foreseer = self._make(*sizes, self._rng)
        errors = np.zeros(len(targets))
        for rows, count in self._batches(np.flatnonzero(is_known)):
            found = np.asarray(self.foreseer.predict_on_batch(inputs[rows]))
            squares = np.square(found - targets[rows]).mean(axis=-1)
            errors[rows[:count]] = squares[:count]
        shuffled = self._rng.permutation(np.flatnonzero(is_known))
        for rows, count in self._batches(shuffled):
            weights = (np.arange(len(rows)) < count).astype(np.float32)
            self.foreseer.train_on_batch(inputs[rows], targets[rows], weights)
        intrinsic = self.scale * np.minimum(errors, self.clip)
        self._added += intrinsic.sum(), errors.sum(), is_known.sum()
        shaped = intrinsic.reshape(rollout.rewards.shape).astype(np.float32)
        return dataclasses.replace(rollout, rewards=rollout.rewards + shaped)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        added, errors, count = self._added
        self._added = np.zeros(3)
        if logs is not None:
            logs["intrinsic_reward"] = added / count if count else np.nan
            logs["curiosity_error"] = errors / count if count else np.nan

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the model, its optimizer and what it has seen, without pickle.

        Args:
            path: file to write, as `numpy.savez` does.

        Returns:
            The path.

        Raises:
            ValueError: if there is no model yet, before the first rollout.
        """
        if self.foreseer is None:
            raise ValueError(
                "Curiosity has no model before the first rollout. Save it after fit."
            )
        state = json.dumps(self._rng.bit_generator.state).encode()
        arrays = {
            **{name: np.asarray(x) for name, x in _variables(self.foreseer).items()},
            **{f"changes.{name}": x for name, x in self._changes.state().items()},
            **{f"seen.{name}": x for name, x in self._seen.state().items()},
            "added": self._added,
            "generator": np.frombuffer(state, np.uint8),
        }
        path = Path(path)
        unfinished = path.with_name(path.name + ".unfinished")
        with open(unfinished, "wb") as file:
            np.savez(file, **arrays)
        return unfinished.replace(path)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Goes on from what `save` wrote, by the arguments of this callback.

        Args:
            path: the file.

        Raises:
            ValueError: if the file is of another model, or none of `save`. Then all
                stays as it was.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
        except (EOFError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path} was not written by Curiosity.save, or is damaged: {error}"
            ) from error
        moments = {"changes": self._changes, "seen": self._seen}
        fixed = {"added", "generator", "model.0"}
        fixed |= {f"{prefix}.{x}" for prefix, m in moments.items() for x in m.state()}
        if not fixed <= set(found):
            raise ValueError(f"{path} was not written by Curiosity.save.")
        sizes = found["model.0"].shape[0], found["changes.mean"].size
        # What there is stays as it is until nothing can fail.
        model = self._make(*sizes, np.random.default_rng(0))
        model.optimizer.build(model.trainable_variables)
        variables = _variables(model)
        expected = {name: tuple(x.shape) for name, x in variables.items()}
        received = {
            name: x.shape for name, x in found.items() if name.startswith(_STORED)
        }
        if received != expected:
            raise ValueError(
                f"{path} has a model of the shapes {received}. Expected {expected}: "
                "give Curiosity the hidden_units that it had."
            )
        for name, variable in variables.items():
            variable.assign(found[name])
        model.optimizer.learning_rate = self.learning_rate
        self._rng.bit_generator.state = json.loads(found["generator"].tobytes())
        for prefix, each in moments.items():
            each.set_state({name: found[f"{prefix}.{name}"] for name in each.state()})
        self._added = found["added"]
        self.foreseer = model

    def _vectors(self, tree: Any) -> np.ndarray:
        if self.features is None:
            return _flat(self._observation_space, tree)
        found = np.asarray(self.features(tree), np.float64)
        size = len(optree.tree_leaves(tree)[0])
        if found.ndim != 2 or len(found) != size:
            raise ValueError(
                f"features returned an array of shape {found.shape} for {size} "
                "observations. Expected [N, F], a row for each."
            )
        return found

    def _make(self, num_inputs: int, num_targets: int, rng: np.random.Generator) -> Any:
        def dense(units: int, activation: str | None = None) -> Any:
            seed = int(rng.integers(2**31))
            initializer = keras.initializers.GlorotUniform(seed)
            return keras.layers.Dense(
                units, activation=activation, kernel_initializer=initializer
            )

        layers = [dense(units, "relu") for units in self.hidden_units]
        model = keras.Sequential(
            [keras.Input((num_inputs,)), *layers, dense(num_targets)]
        )
        model.compile(keras.optimizers.Adam(self.learning_rate), "mse")
        return model

    def _batches(self, numbers: np.ndarray) -> Any:
        """Pairs of rows, all as many so that one graph does, and how many count."""
        for start in range(0, len(numbers), self.batch_size):
            rows = numbers[start : start + self.batch_size]
            yield np.resize(rows, self.batch_size), len(rows)


def _variables(model: Any) -> dict[str, Any]:
    """The variables of a model and of its optimizer, by the names in files."""
    parts = model.variables, model.optimizer.variables
    return {
        f"{prefix}{number}": variable
        for prefix, part in zip(_STORED, parts, strict=True)
        for number, variable in enumerate(part)
    }


class _Moments:
    """Mean and standard deviation of all rows so far."""

    def __init__(self) -> None:
        self._count: Any = 0
        self.mean: Any = 0.0
        self._squares: Any = 0.0

    def state(self) -> dict[str, Any]:
        """What to go on from, arrays."""
        return {"count": self._count, "mean": self.mean, "squares": self._squares}

    def set_state(self, state: dict[str, Any]) -> None:
        self._count = int(state["count"])
        self.mean, self._squares = state["mean"], state["squares"]

    def add(self, rows: np.ndarray) -> None:
        count, mean = len(rows), rows.mean(axis=0)
        total = self._count + count
        distance = mean - self.mean
        self._squares = (
            self._squares
            + np.square(rows - mean).sum(axis=0)
            + np.square(distance) * self._count * count / total
        )
        self.mean = self.mean + distance * count / total
        self._count = total

    @property
    def deviation(self) -> np.ndarray:
        """What never moved is divided by 1."""
        found = np.sqrt(self._squares / self._count)
        return np.where(found > 1e-8, found, 1.0)


def _steps(rollout: Any) -> dict[str, Any]:
    """Steps `[T * B, ...]`: what was seen and done, and what followed, if known."""
    ended = rollout.terminated | rollout.truncated
    is_known = rollout.valid & ~ended

    def after(rows: Any, last: Any) -> Any:
        return np.concatenate([rows[1:], np.asarray(last, rows.dtype)[None]])

    following = optree.tree_map(
        after, rollout.observations, rollout.next_inputs["observations"]
    )
    if rollout.final is not None:
        place = rollout.final["time"], rollout.final["env"]

        def put(rows: Any, final: Any) -> None:
            rows[place] = final

        optree.tree_map_(put, following, rollout.final["observations"])
        # Not after a termination, whatever learns: to end is nothing to be curious of.
        is_known[place] = rollout.valid[place] & ~rollout.terminated[place]

    def flat(tree: Any) -> Any:
        return optree.tree_map(lambda x: x.reshape(-1, *x.shape[2:]), tree)

    return {
        "observations": flat(rollout.observations),
        "actions": flat(rollout.actions),
        "following": flat(following),
        "is_known": is_known.ravel(),
    }


def _flat(space: Any, tree: Any) -> np.ndarray:
    """Rows of numbers `[N, F]`, float64; choices as one-hot vectors."""
    columns = []
    leaves = spaces.leaf_lister(space)(tree)
    for array, (_, leaf) in zip(leaves, spaces.named_leaves(space), strict=True):
        rows = np.asarray(array).reshape(len(array), -1)
        if isinstance(leaf, (gym_spaces.Discrete, gym_spaces.MultiDiscrete)):
            if isinstance(leaf, gym_spaces.Discrete):
                counts = np.atleast_1d(leaf.n)
            else:
                counts = leaf.nvec.ravel()
            starts = np.broadcast_to(np.ravel(leaf.start), counts.shape)
            for column, count, start in zip(rows.T, counts, starts, strict=True):
                columns.append(np.eye(int(count))[column.astype(int) - int(start)])
        else:
            columns.append(rows.astype(np.float64))
    return np.concatenate(columns, axis=-1)
