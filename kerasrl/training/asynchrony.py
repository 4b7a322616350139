"""Which weights rollouts are acted by: the present ones, or those of some updates ago.

Versions of weights are numbered by the iterations of learning before them.
"""

import contextlib
import warnings

import keras
import numpy as np

from kerasrl.checkpoint.contract import of_replay
from kerasrl.workers import AsynchronousCollector


def choose_mode(agent, num_workers, worker_mode):
    """Says how the workers of `fit` are to act.

    Args:
        agent: The `Agent`.
        num_workers, worker_mode: As for `fit`.

    Returns:
        The `worker_mode`, or `None` for what suits the actor.

    Raises:
        ValueError: The algorithm cannot learn from what would be acted.
    """
    name = type(agent).__name__
    if worker_mode is None and num_workers and not agent.synchronous:
        worker_mode = "asynchronous"
    if worker_mode != "asynchronous":
        if agent.fragments_per_update not in (None, 1):
            raise ValueError(
                f"Received fragments_per_update={agent.fragments_per_update}, and "
                "workers that do not act asynchronously: an update learns from all "
                "environments. Leave it out, or use num_workers=2 or more and "
                "synchronous=False."
            )
        if agent.lag and num_workers and not agent.synchronous:
            raise ValueError(
                f"Received lag={agent.lag} with worker_mode={worker_mode!r}. A fixed "
                "lag needs synchronous=True."
            )
        return worker_mode
    if agent.asynchronous and agent.synchronous:
        raise ValueError(
            f"Received worker_mode='asynchronous' for {name}(synchronous=True). Leave "
            "one of them out."
        )
    if not (agent.asynchronous or agent.off_policy):
        raise ValueError(
            f"Received worker_mode='asynchronous'. {name} learns only from what its "
            "present weights acted. Use kerasrl.APPO, kerasrl.IMPALA or kerasrl.A3C, "
            "which correct for older ones, or another worker_mode."
        )
    if agent.lag:
        raise ValueError(
            f"Received lag={agent.lag} for workers that act asynchronously, where it "
            "is not fixed. Use synchronous=True, or lag=0."
        )
    if agent.overlap:
        raise ValueError(
            "Received overlap=True and worker_mode='asynchronous'. Such workers act "
            "while updates run already: use one of them."
        )
    return worker_mode


def steps_per_iteration(agent, envs):
    """Returns how many environment steps one iteration of `fit` takes, if it is known.

    Args:
        agent: The `Agent`.
        envs: `kerasrl.envs.Environments`.
    """
    length = agent.iteration_length(envs.num_envs)
    if length is None:
        return None
    # Then it learns from some workers at a time, each with as many environments.
    share = fragments_per_update(agent, envs)
    return length * envs.num_envs // num_parts(envs) * share


def fragments_per_update(agent, envs):
    """Returns how many fragments of asynchronous workers one update learns from.

    As workers have two fragments in flight, lag is the number of fragments in flight
    over that of an update: with half of the workers it does not grow with their number.

    Args:
        agent: The `Agent`.
        envs: `kerasrl.envs.Environments`.
    """
    if agent.fragments_per_update is None:
        return max(1, num_parts(envs) // 2)
    return agent.fragments_per_update


def num_parts(envs):
    """Returns in how many parts environments are learnt from: 1, or all workers."""
    if getattr(envs, "worker_mode", None) == "asynchronous":
        return envs.pool.num_workers
    return 1


def settle(agent, collector):
    """Settles by which weights the next rollout is acted.

    Args:
        agent: The `Agent`, whose actor has the present weights.
        collector: The `kerasrl.rollouts.Collector`.

    Returns:
        Integer, their version; `None` if workers take over what is published.
    """
    version = agent.iterations
    _forget_misfits(agent)
    if isinstance(collector, AsynchronousCollector):
        collector.publish(version)
        _keep_published(agent, version, min(collector.versions_in_use()))
        return None
    if not agent.lag:
        agent.past_weights.clear()
        agent.published.clear()
        return version
    program = agent.actor().program
    if program is None:
        raise ValueError(
            f"Received lag={agent.lag}. Older weights can be kept only of a policy "
            "that acts without TensorFlow, and this one does not: "
            f"{agent.actor().report['reason']}."
        )
    past = agent.past_weights
    past[version] = [np.array(array) for array in program.weights]
    wanted = version - agent.lag
    oldest = max((v for v in past if v <= wanted), default=min(past))
    for number in [number for number in past if number < oldest]:
        del past[number]
    for target, source in zip(program.weights, past[oldest], strict=True):
        np.copyto(target, source)
    _keep_published(agent, version, oldest)
    return oldest


def _forget_misfits(agent):
    """Forgets older weights of other variables than are trained by now."""
    if not (agent.published or agent.past_weights):
        return  # Keras walks through all layers to list variables.
    shapes = [tuple(v.shape) for v in agent.policy.trainable_variables]
    for arrays in agent.published.values():
        if [array.shape for array in arrays] != shapes:
            agent.published.clear()
            agent.past_weights.clear()
            return


def _keep_published(agent, version, oldest):
    """Keeps what gradients are computed at, for as long as somebody acts by it."""
    if not agent.keeps_published:
        return
    published = agent.published
    variables = agent.policy.trainable_variables
    published[version] = [keras.ops.convert_to_numpy(v).copy() for v in variables]
    for number in [number for number in published if number < oldest]:
        del published[number]


def acted_by(agent, rollout):
    """Returns the weights that acted, as `agent.published` has them.

    Args:
        agent: The `Agent` that acted.
        rollout: A `kerasrl.rollouts.Rollout`.

    Returns:
        Tuple of a list of arrays, one for each trainable variable of the policy, and
        whether they are the present ones.

    Raises:
        ValueError: Weights of that version are not known (any more), or there are
            several versions in it.
    """
    versions = rollout.extras.get("policy_version")
    version = agent.iterations if versions is None else int(versions.flat[0])
    if versions is not None and (versions != version).any():
        raise ValueError(
            f"Received a rollout acted by the weights of versions "
            f"{sorted({*versions.flat})}. Gradients are computed at the weights that "
            "acted: expected one version. Do not join fragments of several."
        )
    if version in agent.published:
        return agent.published[version], version == agent.iterations
    if version != agent.iterations:
        raise ValueError(
            f"Received a rollout acted by the weights of version {version}. Known: "
            f"{sorted({*agent.published, agent.iterations})}. {type(agent).__name__} "
            "computes gradients at the weights that acted here. To learn from a "
            "recorded rollout as if the present ones had acted, leave out "
            'extras["policy_version"].'
        )
    variables = agent.policy.trainable_variables
    return [keras.ops.convert_to_numpy(variable) for variable in variables], True


def values_at(agent, weights):
    """Returns what stands for the weights that acted, where gradients are computed.

    Args:
        agent: The `Agent`.
        weights: List of tensors or arrays, as `acted_by` returns them.

    Returns:
        Tuple of a list of pairs of a variable and its value, for
        `target_network.replaced`, and a list of the values of all that is trained, for
        `at` of `gradients.compute_gradients`: what is not the policy's is as it is.
    """
    variables = agent.policy.trainable_variables
    values = [keras.ops.convert_to_tensor(value) for value in weights]
    pairs = list(zip(variables, values, strict=True))
    acted = {id(variable): value for variable, value in pairs}
    trained = [variable for part in agent.parts().values() for variable in part]
    return pairs, [acted.get(id(variable), variable.value) for variable in trained]


@contextlib.contextmanager
def set_back(agent, weights):
    """A context in which the policy has other weights, for what is not compiled.

    Args:
        agent: The `Agent`.
        weights: List of arrays, one for each trainable variable of the policy.
    """
    variables = agent.policy.trainable_variables
    present = [np.array(variable) for variable in variables]
    _assign(variables, weights)
    try:
        yield
    finally:
        _assign(variables, present)


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def get_arrays(agent):
    """Returns the older weights that an agent keeps, a dict from names to arrays."""
    return {
        f"{kind}.{version}.{index}": array
        for kind in ("past_weights", "published")
        for version, arrays in getattr(agent, kind).items()
        for index, array in enumerate(arrays)
    }


def set_arrays(agent, arrays):
    """Restores what `get_arrays` returned, among other arrays.

    Raises:
        ValueError: They are not weights that the agent could have had.
    """
    for kind in ("past_weights", "published"):
        found = {}
        for name, array in arrays.items():
            first, *rest = name.split(".")
            if first == kind:
                if len(rest) != 2 or not all(part.isdecimal() for part in rest):
                    raise ValueError(f"Received {name!r} among the arrays of a state.")
                found.setdefault(int(rest[0]), {})[int(rest[1])] = array
        if found and kind == "past_weights" and agent.actor().program is None:
            warnings.warn(
                "Older weights in the file are not used: on this machine the policy "
                f"acts in TensorFlow ({agent.actor().report['reason']}), which keeps "
                "none. Acting begins with the present ones.",
                RuntimeWarning,
                stacklevel=2,
            )
            found = {}
        if found:
            _check_past(agent, kind, found)
        setattr(agent, kind, {v: [*map(found[v].get, sorted(found[v]))] for v in found})


def without_past(arrays):
    """Returns the arrays of a state that are those of a replay buffer, a dict."""
    return of_replay(arrays)


def _check_past(agent, kind, found):
    """Raises a ValueError unless older weights are like the present ones."""
    present = agent.policy.trainable_variables
    if kind == "past_weights":
        present = agent.actor().program.weights
    expected = {index: tuple(each.shape) for index, each in enumerate(present)}
    for version, weights in found.items():
        received = {index: array.shape for index, array in weights.items()}
        if version > agent.iterations or received != expected:
            raise ValueError(
                f"Received {kind} of version {version}, after {agent.iterations} "
                f"iterations, of shapes {received}. Expected: {expected}."
            )
