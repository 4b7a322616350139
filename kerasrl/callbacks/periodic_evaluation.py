"""Evaluation during training."""

import math
from pathlib import Path
from typing import Any

from kerasrl.callbacks.callback import Callback


class PeriodicEvaluation(Callback):
    """Evaluates the policy on environments of its own while training.

    Training returns come from a policy that explores. This measures the policy as it
    would be used, every so often, and puts the result in the epoch's logs, where
    `EarlyStopping`, `ReduceLROnPlateau`, `AgentCheckpoint` or `StopOn` can monitor it.
    Put this callback before them in the list.

    Adds to the epoch's logs:

    | name | meaning |
    | --- | --- |
    | `evaluation_return_mean` | mean return of the episodes |
    | `evaluation_return_std` | standard deviation of the returns |
    | `evaluation_length_mean` | mean length in environment steps |

    In epochs without an evaluation all three are NaN, never the number of an earlier
    policy. Stock callbacks that monitor one of them leave these epochs out, also when
    they count for their patience.

    Args:
        env: what to evaluate on: an id, an environment or a factory, as in
            `agent.evaluate`. Give an instance of its own, not the one being trained on.
        every_epochs: int, evaluate at the end of every so many epochs. Default 10 when
            `every_steps` is not given either.
        every_steps: int, or at the first end of an epoch after so many environment
            steps.
        episodes: int, how many episodes each time.
        deterministic: bool, take the distribution's mode instead of a sample.
        seed: int or None. The same seed each time, so that evaluations differ by the
            policy and not by the starting states. None draws other ones each time.
        num_envs: int or None, how many environments to evaluate in at once.
        env_config: dict or None, for environments made by id or factory.
        best_path: path or None. Where to save the agent whenever the mean return is the
            best so far.
        restore_best_weights: bool. Whether to give the policy the best weights back at
            the end of training.

    Attributes:
        best: float, the best `evaluation_return_mean`; -inf before the first.
        best_env_steps: int or None, the agent's environment steps at that moment.
        results: list of dicts, every evaluation with its `env_steps`.
        counts_from: int or None, to be set where a training goes on in another process:
            the agent's environment steps at the end of its last epoch. `every_steps`
            are then counted as if it had not ended there. None: from the start of
            `fit`.

    Raises:
        ValueError: if both or non-positive periods are given.

    Example:

    ```python
    evaluation = kerasrl.callbacks.PeriodicEvaluation(
        "CartPole-v1", every_steps=20_000, best_path="best.kerasrl"
    )
    early = keras.callbacks.EarlyStopping("evaluation_return_mean", mode="max")
    agent.fit("CartPole-v1", steps=200_000, callbacks=[evaluation, early])
    ```
    """

    def __init__(
        self,
        env: Any,
        every_epochs: int | None = None,
        every_steps: int | None = None,
        episodes: int = 10,
        deterministic: bool = True,
        seed: int | None = 0,
        num_envs: int | None = None,
        env_config: dict[str, Any] | None = None,
        best_path: str | Path | None = None,
        restore_best_weights: bool = False,
    ) -> None:
        super().__init__()
        if every_epochs is not None and every_steps is not None:
            raise ValueError(
                "Give every_epochs or every_steps, not both. Received: "
                f"every_epochs={every_epochs}, every_steps={every_steps}"
            )
        if every_epochs is None and every_steps is None:
            every_epochs = 10
        for name, value in (
            ("every_epochs", every_epochs),
            ("every_steps", every_steps),
            ("episodes", episodes),
        ):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1. Received: {value}")
        self.env = env
        self.every_epochs = every_epochs
        self.every_steps = every_steps
        self.episodes = episodes
        self.deterministic = deterministic
        self.seed = seed
        self.num_envs = num_envs
        self.env_config = env_config
        self.best_path = None if best_path is None else Path(best_path).expanduser()
        self.restore_best_weights = restore_best_weights
        self.best = -math.inf
        self.best_env_steps: int | None = None
        self.results: list[dict[str, Any]] = []
        self.counts_from: int | None = None
        self._best_weights: Any = None
        self._epochs = 0
        self._next_steps = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self.best_path is not None:
            # What cannot be saved shall not be found out after hours.
            self.agent.check_savable(self.best_path)
        self._epochs = 0
        if self.counts_from is None:
            self._next_steps = self.agent.env_steps + (self.every_steps or 0)
        else:
            period = self.every_steps or 1
            self._next_steps = period * (1 + self.counts_from // period)
            self.counts_from = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epochs += 1
        result = dict.fromkeys(("return_mean", "return_std", "length_mean"), math.nan)
        if self._is_due():
            result.update(self._evaluate())
        if logs is not None:
            for name in ("return_mean", "return_std", "length_mean"):
                logs[f"evaluation_{name}"] = float(result[name])

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.restore_best_weights and self._best_weights is not None:
            self.agent.set_weights(self._best_weights)

    def _is_due(self) -> bool:
        if self.every_epochs is not None:
            return self._epochs % self.every_epochs == 0
        steps, period = self.agent.env_steps, self.every_steps or 1
        if steps < self._next_steps:
            return False
        # An epoch may be longer than the period: no evaluation is made up for.
        self._next_steps += period * (1 + (steps - self._next_steps) // period)
        return True

    def _evaluate(self) -> dict[str, float]:
        result = self.agent.evaluate(
            self.env,
            episodes=self.episodes,
            deterministic=self.deterministic,
            seed=self.seed,
            num_envs=self.num_envs,
            env_config=self.env_config,
            verbose=0,
        )
        # Ranks decide by the same numbers.
        result = self.agent.replicas.gather_data(result)[0]
        self.results.append({"env_steps": int(self.agent.env_steps), **result})
        if result["return_mean"] > self.best:
            self.best = float(result["return_mean"])
            self.best_env_steps = int(self.agent.env_steps)
            if self.restore_best_weights:
                self._best_weights = self.agent.get_weights()
            if self.best_path is not None:
                self.best_path.parent.mkdir(parents=True, exist_ok=True)
                self.agent.save(self.best_path)
        return result
