"""Learning from rollouts, or computing gradients of them and applying those apart."""

import dataclasses

import numpy as np
import tensorflow as tf

from kerasrl import checks
from kerasrl.agents.on_policy import OnPolicyAgent, learn_compiled
from kerasrl.execution.streams import check_running, reading
from kerasrl.training import asynchrony, gradients, loop
from kerasrl.training.compiled import CompiledUpdate
from kerasrl.training.parts import Replaceable
from kerasrl.training.target_network import replaced


@dataclasses.dataclass
class Gradient:
    """The gradient of the loss of one rollout.

    Args:
        arrays: List of arrays, one for each trainable variable of the agent.
        version: Integer, the iterations of learning before the weights that acted,
            at which it was computed.
        num_steps: Integer, environment steps that it is a mean over.
        num_envs: Integer, environments that they were taken in.
        metrics: Dict of floats, the loss and its terms.
    """

    arrays: list
    version: int
    num_steps: int
    num_envs: int
    metrics: dict


def train_one_step(agent, rollouts):
    """Has an agent learn from each rollout, as one iteration of `fit` does.

    Args:
        agent: The `kerasrl.Agent` that acted.
        rollouts: Iterable of `kerasrl.rollouts.Rollout`, from `parallel_rollouts` of
            that agent, perhaps through `concatenate` and the like.

    Yields:
        Dict of floats, the loss and its terms; empty where nothing was learnt, as
        before `learning_starts`. `agent.iterations` counts it in any case.

    Raises:
        ValueError: The rollout was acted by older weights, and the algorithm does not
            correct for that; or rollouts were joined that it has to tell apart.
        RuntimeError: Nothing acts for the agent.
        FloatingPointError: The loss became NaN or infinite.

    Example:

    ```python
    for metrics in train_one_step(agent, parallel_rollouts(agent, "CartPole-v1")):
        print(metrics["loss"])
    ```
    """
    with reading(rollouts) as stream:
        for rollout in stream:
            check_running(agent, "train_one_step")
            _check_fresh(agent, rollout)
            _check_width(agent, rollout)
            with agent.replicas.scope(), agent.replicas.errors():
                metrics = agent.learn_from(rollout) or {}
            agent.iterations += 1
            loop.check_finite(agent, metrics.get("loss", 0.0))
            yield metrics


def async_gradients(agent, rollouts):
    """Computes the gradient of each rollout, at the weights that acted it.

    Targets and loss are those of the algorithm, on the whole rollout; its epochs,
    minibatches and other updates are not made. Nothing is applied, but statistics of
    observations move on.

    Args:
        agent: The `kerasrl.OnPolicyAgent` that acted.
        rollouts: As for `train_one_step`; each was acted by weights of one version.

    Yields:
        A `Gradient`. Rollouts in which no step is valid have none.

    Raises:
        TypeError: Not such an agent, or one that corrects for older weights otherwise.
        ValueError: The weights that acted are not known any more, or are of several
            versions.
        RuntimeError: Nothing acts for the agent.
        FloatingPointError: The loss became NaN or infinite.

    Example:

    ```python
    rollouts = parallel_rollouts(agent, env, num_workers=2, mode="async")
    results = apply_gradients(agent, async_gradients(agent, rollouts))
    ```
    """
    _check_has_gradients(agent)
    return _gradients(agent, rollouts)


def apply_gradients(agent, gradients, update_all=False):
    """Takes one optimizer step along each gradient, at the present weights.

    Clipping, optimizers and `step_gradients` are those of the agent.

    Args:
        agent: The `kerasrl.OnPolicyAgent` that they are of.
        gradients: Iterable of `Gradient`.
        update_all: `False` takes a step along each gradient as it comes, so that only
            the worker that sent it goes on with the weights that it made. `True` waits
            until there are gradients of as many environments as act, and takes one step
            along their mean over environment steps. Workers of `mode="async"` do not
            wait for that: they go on with the weights that there are, and one that is
            fast may have sent several of those gradients. With `mode="bulk_sync"`
            nobody goes on before the step. What is left in the end is dropped.

    Yields:
        Dict of floats, the loss and its terms, `"gradient_norm"` before clipping, and
        `"gradient_lag"`, how many iterations older the weights were that acted.

    Raises:
        TypeError: What it received are no gradients.
        ValueError: They are of other variables than the agent has.

    Example:

    ```python
    for metrics in apply_gradients(agent, async_gradients(agent, rollouts)):
        print(metrics["gradient_norm"])
    ```
    """
    update_all = checks.flag("update_all", update_all)
    _check_has_gradients(agent)
    return _steps(agent, gradients, update_all)


def _gradients(agent, rollouts):
    compute = _Compiled(agent, _compute)
    with reading(rollouts) as stream:
        for rollout in stream:
            check_running(agent, "async_gradients")
            if not rollout.num_steps:
                continue
            _check_width(agent, rollout)
            with agent.replicas.scope(), agent.replicas.errors():
                gradient = _gradient(agent, rollout, compute)
            loop.check_finite(agent, gradient.metrics["loss"])
            yield gradient


def _gradient(agent, rollout, compute):
    weights, are_present = asynchrony.acted_by(agent, rollout)
    version = rollout.extras.get("policy_version")
    version = agent.iterations if version is None else int(version.flat[0])
    steps, width = rollout.num_steps, rollout.rewards.shape[1]
    _check_variables(agent)
    if agent.reward_scaler is not None:
        scaled = agent.reward_scaler(rollout)
        rollout = dataclasses.replace(rollout, rewards=scaled)
    agent.prepare_optimizer()
    if are_present:
        arrays = agent.arrays(rollout)
    else:
        with asynchrony.set_back(agent, weights):
            arrays = agent.arrays(rollout)
    metrics, found = compute(arrays, agent.scheduled_values(), list(weights))
    return Gradient([x.numpy() for x in found], version, steps, width, metrics)


def _compute(agent, rollout, scheduled_values, weights):
    """Gradients of a rollout at other weights. Compiled."""
    pairs, at = asynchrony.values_at(agent, weights)
    found = []

    def update(batch, settings, minibatches):
        scaled, metrics = gradients.compute_gradients(agent, batch, settings, at=at)
        # 1, but in mixed precision, where it may change until they are applied.
        scale = agent.policy.optimizer.scale_loss(1.0)
        found.extend(tf.convert_to_tensor(each) / scale for each in scaled)
        return metrics

    with replaced(pairs):
        inputs = rollout, scheduled_values, {"weights": weights}
        metrics = learn_compiled(agent, *inputs, update)
    return metrics, tuple(found)


def _steps(agent, stream_of_gradients, update_all):
    apply = _Compiled(agent, _apply)
    held = []
    with reading(stream_of_gradients) as stream:
        for gradient in stream:
            check_running(agent, "apply_gradients")
            _check_gradient(agent, gradient)
            held.append(gradient)
            width = sum(each.num_envs for each in held)
            if update_all and width < agent.envs.num_envs:
                continue
            lag = np.mean([agent.iterations - each.version for each in held])
            with agent.replicas.scope(), agent.replicas.errors():
                agent.prepare_optimizer()
                norms, _ = apply(_mean([each.arrays for each in held], held))
            agent.iterations += 1
            metrics = {
                name: _mean([each.metrics[name] for each in held], held)
                for name in held[0].metrics
            }
            held = []
            yield {**metrics, **norms, "gradient_lag": float(lag)}


def _apply(agent, found):
    """One step of the optimizers. Compiled."""
    scale = agent.policy.optimizer.scale_loss(1.0)
    scaled = [each * scale for each in found]
    return {"gradient_norm": gradients.take_step(agent, scaled, {})}, ()


def _mean(values, held):
    """Mean of numbers, or of lists of arrays, by the steps that they are means over."""
    if len(held) == 1:
        return values[0]
    shares = np.array([each.num_steps for each in held], np.float64)
    shares /= shares.sum()
    if not isinstance(values[0], list):
        return float(np.dot(shares, values))
    return [
        sum(share * array for share, array in zip(shares.tolist(), arrays, strict=True))
        for arrays in zip(*values, strict=True)
    ]


class _Compiled:
    """A function of an agent as one compiled call, made anew where it is outdated.

    Args:
        agent: The `Agent`.
        function: Takes the agent and trees of tensors; returns as for `CompiledUpdate`.
    """

    def __init__(self, agent, function):
        self._agent, self._function = agent, function
        self._update = self._made_for = None

    def __call__(self, *inputs):
        agent = self._agent
        now = [getattr(agent, name) for name in agent.hyperparameters()]
        if self._is_outdated(now):
            function = self._function
            self._made_for = now
            self._update = CompiledUpdate(agent, lambda *x: function(agent, *x))
        return self._update(*inputs), self._update.outputs

    def _is_outdated(self, now):
        update, agent = self._update, self._agent
        if update is None or update.is_outdated():
            return True
        if not update.trains(agent.trainable_variables):
            return True
        pairs = zip(self._made_for, now, strict=True)
        return any(before is not value for before, value in pairs)


def _check_has_gradients(agent):
    name = type(agent).__name__
    if not isinstance(agent, OnPolicyAgent):
        raise TypeError(
            f"Received a {name}. Gradients of rollouts are those of an OnPolicyAgent, "
            "such as kerasrl.PPO or kerasrl.A2C. Use train_one_step."
        )
    if agent.asynchronous and not agent.keeps_published:
        raise TypeError(
            f"Received a {name}, which corrects for older weights by itself. Use "
            "train_one_step."
        )
    if type(agent).after_step is not Replaceable.after_step:
        raise TypeError(
            f"Received a {name}, whose after_step takes the batch of a gradient step. "
            "Here it would not be known any more: use train_one_step."
        )


def _check_variables(agent):
    """Raises a TypeError if more is trained than what acts."""
    acting = {id(variable) for variable in agent.policy.trainable_variables}
    trained = [v for part in agent.parts().values() for v in part]
    others = [v.path for v in trained if id(v) not in acting]
    if others:
        raise TypeError(
            f"{type(agent).__name__} trains variables that are not its policy's: "
            f"{others}. Only of those is it known what they were when it acted: use "
            "train_one_step."
        )


def _check_fresh(agent, rollout):
    """Raises a ValueError if older weights acted than an algorithm can learn from."""
    versions = rollout.extras.get("policy_version")
    if agent.asynchronous or agent.off_policy or agent.lag or versions is None:
        return
    lag = agent.iterations - int(versions.min())
    if lag:
        raise ValueError(
            f"Received a rollout acted by the weights of {lag} iterations ago. "
            f"{type(agent).__name__} learns only from what its present weights acted: "
            "use mode='bulk_sync', async_gradients with apply_gradients, or an "
            "algorithm that corrects for it, such as kerasrl.APPO."
        )


def _check_width(agent, rollout):
    """Raises a ValueError if rollouts were joined of which streams are to be told."""
    width = rollout.rewards.shape[1]
    expected = agent.envs.num_envs // asynchrony.num_parts(agent.envs)
    if width == expected:
        return
    if agent.off_policy or agent.reward_scaler is not None:
        what = "replays" if agent.off_policy else "scales rewards (normalize_rewards)"
        raise ValueError(
            f"Received a rollout of {width} environments, where {expected} act. "
            f"{type(agent).__name__} {what}, for which steps of one environment must "
            "follow each other: leave concatenate out."
        )


def _check_gradient(agent, gradient):
    if not isinstance(gradient, Gradient):
        raise TypeError(
            f"Received {gradient!r:.200} to apply. Expected a "
            "kerasrl.execution.Gradient, as async_gradients yields."
        )
    variables = [v for part in agent.parts().values() for v in part]
    received = [tuple(array.shape) for array in gradient.arrays]
    expected = [tuple(variable.shape) for variable in variables]
    if received != expected:
        raise ValueError(
            f"Received a gradient of arrays of shapes {received}. Expected one for "
            f"each trainable variable of the agent: {expected}."
        )
