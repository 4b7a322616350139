"""Making rollouts, joining them, and changing them."""

import dataclasses
import itertools

import numpy as np
import optree

from kerasrl import checks
from kerasrl.execution.streams import reading
from kerasrl.training import (
    asynchrony,
    environments,
    optimizing,
    ranks,
    schedules,
    sources,
)
from kerasrl.workers import check_settings, make_environments

MODES = ("bulk_sync", "async")


def parallel_rollouts(
    agent,
    env,
    steps=None,
    *,
    num_envs=None,
    env_config=None,
    num_workers=0,
    mode="bulk_sync",
    env_timeout=None,
    cluster=None,
    info_keys=(),
):
    """Yields rollouts of an agent in environments, which end with the generator.

    Each is acted by the weights that the agent has when the rollout begins. Environment
    steps and episodes are counted in `agent.env_steps` and `agent.statistics` as
    rollouts are yielded. While the generator is open, `agent.foreach_env`,
    `agent.call_envs`, `agent.workers`, `agent.evaluate` and `agent.save` work as
    between the iterations of `agent.iterate`.

    With `mode="async"` workers act while whoever takes the rollouts does something
    else, and each rollout is a fragment of one worker. Its
    `extras["policy_version"]` says by the weights of which iteration it was acted. An
    algorithm that does not correct for that is to learn from `async_gradients`; a
    worker of it goes on only when its fragment was taken and the next is asked for.

    Args:
        agent: A `kerasrl.Agent` that learns from rollouts.
        env: Id or registered name, environment, or a function that makes one, as for
            `fit`.
        steps: Integer, environment steps after which it ends, rounded up to whole
            rollouts; `None` for never. Hyperparameters that are functions of progress
            need it.
        num_envs, env_config, num_workers, env_timeout, cluster, info_keys: As for
            `fit`.
        mode: `"bulk_sync"`, rollouts `[T, B, ...]` of all environments; or `"async"`,
            `[T, b, ...]` of one worker, the oldest first. The same without workers.

    Yields:
        A `kerasrl.rollouts.Rollout`, as long as an iteration of `fit`.

    Raises:
        ValueError: Arguments contradict each other or the agent.
        TypeError: The agent does not learn from rollouts.
        RuntimeError: The agent is being trained already.

    Example:

    ```python
    rollouts = execution.parallel_rollouts(agent, "CartPole-v1", num_envs=8)
    with contextlib.closing(rollouts):
        for rollout in rollouts:
            ...
    ```
    """
    checks.choice("mode", mode, MODES)
    if steps is not None:
        steps = checks.positive_integer("steps", steps)
    info_keys = checks.names("info_keys", info_keys)
    check_settings(num_envs, num_workers, None, env_timeout, cluster)
    sources.check_learns(agent)
    _check_fits(agent, steps)
    worker_mode = None
    if mode == "async" and num_workers:
        worker_mode = "asynchronous"
        if agent.asynchronous or agent.off_policy:
            asynchrony.choose_mode(agent, num_workers, worker_mode)
        elif agent.lag:
            raise ValueError(
                f"Received lag={agent.lag} with mode='async', where it is not fixed."
            )
    making = {
        "num_envs": num_envs,
        "env_config": env_config,
        "num_workers": num_workers,
        "worker_mode": worker_mode,
        "env_timeout": env_timeout,
        "cluster": cluster,
    }
    return _rollouts(agent, env, steps, making, info_keys)


def _rollouts(agent, env, steps, making, info_keys):
    environments.check_free(agent)
    # Who does not correct for older weights learns from gradients at them.
    keeps = making["worker_mode"] is not None and not (
        agent.asynchronous or agent.off_policy
    )
    envs = make_environments(env, **making)
    try:
        with agent.replicas.scope(), agent.replicas.errors():
            environments.enter(agent, envs, env)
            if keeps:
                agent.keeps_published = True
            if steps is not None:
                agent.expect_steps(steps, envs.num_envs)
            ranks.separate(agent)
            agent.start_learning(envs.num_envs)
            agent.source = agent.source_class(agent, envs, info_keys)
            # Whoever wants several together has `concatenate`.
            agent.source.collector.num_fragments = 1
            agent.source.start()
        began = agent.env_steps
        while steps is None or agent.env_steps - began < steps:
            if steps is not None:
                agent.progress = (agent.env_steps - began) / steps
            with agent.replicas.scope(), agent.replicas.errors():
                agent.source.refresh()
                rollout = agent.source.collect()
                agent.tally.add(rollout, agent.source.drain_episodes())
            try:
                yield rollout
            except GeneratorExit:  # Whoever iterates has had enough.
                break
        with agent.replicas.scope():
            optimizing.finish(agent)
    finally:
        if keeps:
            vars(agent).pop("keeps_published", None)
            agent.published = {}
        environments.leave(agent, envs)


def concatenate(rollouts, min_steps):
    """Joins rollouts along the axis of environments until they have enough steps.

    What is left when there are no more is too little, and dropped.

    Args:
        rollouts: Iterable of `kerasrl.rollouts.Rollout`, all of as many steps in each
            environment.
        min_steps: Integer, environment steps; fillers do not count.

    Yields:
        A `kerasrl.rollouts.Rollout` `[T, B1 + B2 + ..., ...]`, the first on the left.

    Raises:
        ValueError: Rollouts differ in length, or in what they hold.

    Example:

    ```python
    rollouts = parallel_rollouts(agent, env, num_workers=2, mode="async")
    for rollout in concatenate(rollouts, min_steps=1024):
        ...
    ```
    """
    min_steps = checks.positive_integer("min_steps", min_steps)

    def generate():
        with reading(rollouts) as stream:
            parts = []
            for rollout in stream:
                parts.append(rollout)
                if sum(part.num_steps for part in parts) >= min_steps:
                    yield _join(parts)
                    parts = []

    return generate()


def standardize(rollouts, field):
    """Gives a field of each rollout mean 0 and standard deviation 1.

    Fillers do not count, and stay as they are. Where all values are the same, only
    their mean is subtracted. Advantages are computed later, by algorithms, which have
    arguments such as `normalize_advantages` for them.

    Args:
        rollouts: Iterable of `kerasrl.rollouts.Rollout`.
        field: `"rewards"`, or the name of numbers among `extras` or `infos`.

    Yields:
        A `kerasrl.rollouts.Rollout` with that field changed, as float32; the others
        are those of the one received.

    Raises:
        ValueError: A rollout has no such field, or not one number for each step.

    Example:

    ```python
    for rollout in standardize(parallel_rollouts(agent, env), "rewards"):
        ...
    ```
    """
    if not isinstance(field, str):
        raise TypeError(f"Received field={field!r}. Expected the name of a field.")

    def generate():
        with reading(rollouts) as stream:
            for rollout in stream:
                yield _standardized(rollout, field)

    return generate()


def _check_fits(agent, steps):
    """Raises a ValueError if an agent cannot do what is asked here."""
    if agent.replicas.num_ranks > 1:
        raise ValueError(
            f"Received an agent that is one of {agent.replicas.num_ranks} ranks. They "
            "learn in step, which only fit and iterate see to: use these."
        )
    if agent.overlap:
        raise ValueError(
            "Received overlap=True. Here updates run when they are asked for: use "
            "overlap=False, or mode='async'."
        )
    if steps is None:
        for name in agent.hyperparameters():
            if schedules.goes_by_progress(getattr(agent, name)):
                raise ValueError(
                    f"Received steps=None, and {name} is a function of progress, which "
                    "nobody knows then. Pass steps, or use a "
                    "keras.optimizers.schedules.LearningRateSchedule."
                )


def _join(rollouts):
    if len(rollouts) == 1:
        return rollouts[0]
    first = rollouts[0]
    form = _form(first)
    for other in rollouts[1:]:
        if _form(other) != form:
            raise ValueError(
                "Received rollouts to concatenate that are not alike: "
                f"{form} and {_form(other)}. Expected the same steps in each "
                "environment and the same extras, infos and states."
            )

    def join(axis, *trees):
        return optree.tree_map(lambda *x: np.concatenate(x, axis=axis), *trees)

    fields = {
        field.name: getattr(first, field.name) for field in dataclasses.fields(first)
    }
    for name in fields:
        trees = [getattr(rollout, name) for rollout in rollouts]
        if name in ("state", "next_inputs"):
            fields[name] = None if trees[0] is None else join(0, *trees)
        elif name not in ("final", "first_env"):
            fields[name] = join(1, *trees)
    fields["final"] = _join_finals(rollouts)
    return type(first)(**fields)


def _join_finals(rollouts):
    widths = [rollout.rewards.shape[1] for rollout in rollouts]
    starts = itertools.accumulate(widths, initial=0)
    finals = [
        {**rollout.final, "env": rollout.final["env"] + start}
        for rollout, start in zip(rollouts, starts, strict=False)
        if rollout.final is not None
    ]
    if not finals:
        return None
    joined = optree.tree_map(lambda *x: np.concatenate(x), *finals)
    # In the order of time, as that of a single rollout is.
    order = np.lexsort((joined["env"], joined["time"]))
    return optree.tree_map(lambda array: array[order], joined)


def _form(rollout):
    """All that must be alike in rollouts that are joined."""
    time_fields = (rollout.extras, rollout.infos, rollout.observations, rollout.actions)
    shapes = [x.shape[2:] for x in optree.tree_leaves(time_fields)]
    structure = optree.tree_structure((*time_fields, rollout.state))
    has_next = rollout.next_inputs is not None
    return {
        "length": len(rollout.rewards),
        "shapes": shapes,
        "structure": structure,
        "next_inputs": has_next,
    }


def _standardized(rollout, field):
    place = {}
    if field == "rewards":
        values = rollout.rewards
    else:
        found = [x for x in ("extras", "infos") if field in getattr(rollout, x)]
        if not found:
            known = sorted({"rewards", *rollout.extras, *rollout.infos})
            raise ValueError(
                f"Received field={field!r}, which the rollout has not. Expected one of "
                f"{known}. Advantages are computed later, by the algorithm."
            )
        place = getattr(rollout, found[0])
        values = place[field]
    shape = getattr(values, "shape", None)
    if shape != rollout.valid.shape or values.dtype.kind not in "fiu":
        raise ValueError(
            f"Received field={field!r}, of shape {shape}. Expected one number for each "
            f"step, {rollout.valid.shape}."
        )
    counted = rollout.valid & np.isfinite(values)
    chosen = values[counted].astype(np.float64)
    changed = values.astype(np.float32)
    if chosen.size:
        spread = chosen.std()
        centred = chosen - chosen.mean()
        changed[counted] = centred / spread if spread > 1e-8 else centred
    if field == "rewards":
        return dataclasses.replace(rollout, rewards=changed)
    return dataclasses.replace(rollout, **{found[0]: {**place, field: changed}})
