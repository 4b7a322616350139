"""Making environments from whatever a user has."""

import importlib
import importlib.util
import inspect

import gymnasium
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import VectorEnv

from kerasrl.checks import nearest
from kerasrl.envs import preprocessors
from kerasrl.envs.atari import is_atari, make_atari
from kerasrl.envs.environments import Environments
from kerasrl.envs.registration import (
    EnvContext,
    WorkerShare,
    find_creator,
    unknown_env_error,
)
from kerasrl.envs.rendering import check_display
from kerasrl.envs.row_seeds import RowForm
from kerasrl.envs.serial import SerialEnvironments
from kerasrl.envs.vector import VectorEnvironments

DEFAULT_NUM_ENVS = 8
_CONTEXT_NAMES = ("context", "config", "env_config", "env_context")
_WHOLE = WorkerShare()
#: Where gymnasium keeps environments that need another package: its name, and what to
#: install.
_DEPENDENCIES = {
    "gymnasium.envs.box2d": ("Box2D", "pip install kerasrl[box2d]"),
    "gymnasium.envs.mujoco": ("mujoco", "pip install kerasrl[mujoco]"),
    "gymnasium.envs.phys2d": ("jax", 'pip install "gymnasium[jax]"'),
    "gymnasium.envs.tabular": ("jax", 'pip install "gymnasium[jax]"'),
}


def make_envs(env, num_envs=None, env_config=None, render_mode=None, share=_WHOLE):
    """Makes the environments that a collector steps.

    Args:
        env: a name given to `register_env`, a gymnasium id, a `gymnasium.Env`, a
            factory, a `gymnasium.vector.VectorEnv`, or an `Environments` (returned as
            it is). A factory takes an `EnvContext` (if it has a required parameter, or
            one called `context`, `config` or `env_config`), or else the entries of
            `env_config` as keywords; a class is a factory.
        num_envs: integer, number of environments. None means 8 for names, ids and
            factories, 1 for an instance, its own number for a vector environment.
        env_config: dict. Keywords of `gymnasium.make` for a gymnasium id, otherwise
            the content of the `EnvContext`. Its entries `preprocessor` and
            `preprocessor_config` are for `register_preprocessor`.
        render_mode: string, for instance `"rgb_array"`, or None.
        share: `WorkerShare`, which part of a run these are, for `EnvContext` and for
            messages.

    Returns:
        An `Environments`. Its `close` closes only what was made here.

    Raises:
        ValueError: for an unknown name (the message gives the nearest), a number of
            environments, an `env_config` or a `render_mode` that cannot be honoured,
            or spaces that are not supported.
        TypeError: if `env` is none of the above.

    Example:

    ```python
    envs = make_envs("CartPole-v1", num_envs=4)
    envs.reset([0, 1, 2, 3]).shape
    # (4, 4)
    ```
    """
    if num_envs is not None and (
        isinstance(num_envs, bool) or not isinstance(num_envs, int) or num_envs < 1
    ):
        raise ValueError(
            f"`num_envs` must be a positive integer or None. Received: {num_envs!r}."
        )
    if env_config is not None and not isinstance(env_config, dict):
        raise ValueError(f"`env_config` must be a dict. Received: {env_config!r}.")
    given = env_config
    env_config, wrap = preprocessors.split(env_config)
    asked = render_mode or (env_config or {}).get("render_mode")
    if asked == "human" and (isinstance(env, str) or callable(env)):
        check_display()
    if isinstance(env, str):
        envs = _from_name(env, num_envs, env_config, render_mode, share, wrap)
        return _placed(envs, share)
    if isinstance(env, (Environments, VectorEnv, gymnasium.Env)):
        _refuse_settings(env, given, render_mode)
        if isinstance(env, Environments):
            return _check_number(env, num_envs)
        if isinstance(env, VectorEnv):
            return _check_number(VectorEnvironments(env), num_envs)
        if num_envs not in (None, 1):
            raise ValueError(
                f"One environment instance cannot become {num_envs} environments. "
                "Pass a gymnasium id, or a factory such as `lambda: MyEnv()`, or "
                "leave `num_envs` out."
            )
        return SerialEnvironments([env])
    if isinstance(env, RowForm):
        count = DEFAULT_NUM_ENVS if num_envs is None else num_envs
        return _placed(VectorEnvironments(env(count), env.name, owned=True), share)
    if callable(env):
        envs = _from_factory(env, num_envs, env_config, render_mode, None, share, wrap)
        return _placed(envs, share)
    raise TypeError(
        "`env` must be a name, a gymnasium id, a gymnasium.Env, a factory, a "
        f"gymnasium.vector.VectorEnv or an Environments. Received: {env!r}."
    )


def _placed(envs, share):
    envs.first_index = share.first_index
    if share.num_envs is not None:
        envs.num_envs_of_run = share.num_envs
    return envs


def _from_name(name, num_envs, env_config, render_mode, share, wrap):
    creator = find_creator(name)
    if creator is not None:
        return _from_factory(
            creator, num_envs, env_config, render_mode, name, share, wrap
        )
    if name.startswith("ALE/") and name not in gymnasium.registry:
        try:
            import ale_py
        except ImportError as error:
            raise ValueError(
                f"{name!r} needs the Atari environments: pip install kerasrl[atari]."
            ) from error
        gymnasium.register_envs(ale_py)
    spec = _find_spec(name)
    needed = missing_dependency(spec)
    if needed is not None:
        raise ValueError(f"{name!r} needs a package that is not installed: {needed}.")
    if is_atari(spec):
        count = DEFAULT_NUM_ENVS if num_envs is None else num_envs
        # Of a preprocessor it says that these are not single environments.
        return wrap(make_atari(name, spec, count, env_config, render_mode, share))
    kwargs = {} if env_config is None else env_config
    if render_mode is not None:
        kwargs = {**kwargs, "render_mode": render_mode}
    count = DEFAULT_NUM_ENVS if num_envs is None else num_envs
    envs = []
    try:
        _check_arguments(name, spec, {} if env_config is None else env_config)
        for _ in range(count):
            envs.append(gymnasium.make(name, disable_env_checker=True, **kwargs))
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        raise ValueError(f"{name!r} cannot be made here: {error}") from error
    except (gymnasium.error.Error, TypeError, LookupError, AssertionError) as error:
        raise ValueError(
            f"{name!r} does not accept these settings. Received: env_config="
            f"{env_config}, render_mode={render_mode!r}. {error}"
        ) from error
    name = envs[0].spec.id
    return SerialEnvironments(list(map(wrap, envs)), name=name, owned=True)


def _find_spec(name):
    """Returns the gymnasium.EnvSpec of `id` or `module:id`, the latest if versions are.

    Asking `gymnasium.make` for an id that it does not know ends in one of many errors,
    after a warning of its own.
    """
    module, colon, env_id = name.rpartition(":")
    if colon:
        try:
            importlib.import_module(module)
        except (ImportError, TypeError, ValueError) as error:
            raise ValueError(
                f"The module {module!r} of {name!r} cannot be imported: {error}."
            ) from error
    specs = {}
    for spec in sorted(gymnasium.registry.values(), key=lambda x: x.version or 0):
        specs[spec.id] = spec
        if spec.version is not None:
            specs[spec.id.rpartition("-v")[0]] = spec
    if env_id not in specs:
        raise unknown_env_error(name)
    return specs[env_id]


def _check_arguments(name, spec, env_config):
    creator = spec.entry_point
    if creator is None:
        return  # Only a vector environment: `gymnasium.make` says so.
    if not callable(creator):
        creator = load_env_creator(creator)
    parameters = inspect.signature(creator).parameters.values()
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
        return
    common = set(inspect.signature(gymnasium.make).parameters) - {"id", "kwargs"}
    own = {each.name for each in parameters} - {"self"}
    for key in env_config:
        if key not in own | common:
            raise ValueError(
                f"{name!r} has no argument {key!r} in env_config. "
                f"{nearest(key, own | common)}"
            )


def missing_dependency(spec):
    """How to install what an environment cannot be made without, or None.

    Args:
        spec: `gymnasium.envs.registration.EnvSpec`.

    Returns:
        A string, or None if nothing is known to be missing.

    Example:

    ```python
    missing_dependency(gymnasium.spec("CartPole-v1"))  # None
    ```
    """
    entry_point = spec.entry_point
    if callable(entry_point):
        # Gymnasium's way of saying so of shimmy and gymnasium-robotics.
        is_elsewhere = getattr(entry_point, "__name__", "").startswith("_raise_")
        return "gymnasium has moved it to another one" if is_elsewhere else None
    room = str(entry_point).rpartition(".")[0]
    package, install = _DEPENDENCIES.get(room, (None, None))
    if package is None or importlib.util.find_spec(package) is not None:
        return None
    return install


def _from_factory(factory, num_envs, env_config, render_mode, name, share, wrap):
    first = _call_factory(factory, 0, env_config, render_mode, share)
    if isinstance(first, VectorEnv):
        wrap(first)  # Says that it cannot.
        _check_render_mode(first, render_mode)
        return _check_number(VectorEnvironments(first, name, owned=True), num_envs)
    if not isinstance(first, gymnasium.Env):
        raise TypeError(
            f"The factory must return a gymnasium.Env. Received: {type(first)} from "
            f"{factory!r}."
        )
    envs = [first]
    for index in range(1, DEFAULT_NUM_ENVS if num_envs is None else num_envs):
        envs.append(_call_factory(factory, index, env_config, render_mode, share))
    if len({id(env.unwrapped) for env in envs}) < len(envs):
        raise ValueError(
            f"The factory must make a new environment at every call. Received: the "
            f"same object several times from {factory!r}. Make it inside the factory, "
            "or pass num_envs=1."
        )
    _check_render_mode(first, render_mode)
    return SerialEnvironments(list(map(wrap, envs)), name, owned=True)


def _call_factory(factory, index, env_config, render_mode, share):
    context = EnvContext(
        env_config,
        share.worker_index,
        index,
        share.num_workers,
        render_mode,
        share.first_index + index,
    )
    try:
        parameters = list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):  # Some built-in callables have no signature.
        parameters = []
    positional = [
        parameter
        for parameter in parameters
        if parameter.kind
        in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if positional and (
        positional[0].default is inspect.Parameter.empty
        or positional[0].name in _CONTEXT_NAMES
    ):
        return factory(context)
    kwargs = dict(context)
    names = {parameter.name for parameter in parameters}
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    unknown = sorted(set(kwargs) - names)
    if unknown and not takes_any:
        raise ValueError(
            f"The factory {factory!r} takes neither an EnvContext nor these entries of "
            f"`env_config`. Received: {unknown}. Expected one of: {sorted(names)}; or "
            "give the factory one required parameter to receive the EnvContext."
        )
    if render_mode is not None and "render_mode" in names:
        kwargs["render_mode"] = render_mode
    return factory(**kwargs)


def _check_render_mode(env, render_mode):
    if render_mode is not None and env.render_mode != render_mode:
        raise ValueError(
            f"The factory did not honour render_mode={render_mode!r}. Received an "
            f"environment with render_mode={env.render_mode!r}. Give the factory a "
            "parameter `render_mode`, or read `context.render_mode`."
        )


def _refuse_settings(env, env_config, render_mode):
    if env_config:
        raise ValueError(
            f"`env_config` cannot change an environment that exists already. Received: "
            f"{env_config} with {env}. Pass a gymnasium id or a factory instead."
        )
    if render_mode is not None:
        actual = getattr(env, "render_mode", None)
        if isinstance(env, VectorEnvironments):
            actual = env.env.render_mode
        elif isinstance(env, SerialEnvironments):
            actual = env.envs[0].render_mode
        if actual != render_mode:
            raise ValueError(
                f"The environment exists already, with render_mode={actual!r}. "
                f"Received: render_mode={render_mode!r}. Make it with that render "
                "mode, or pass a gymnasium id or a factory."
            )


def _check_number(envs, num_envs):
    if num_envs not in (None, envs.num_envs):
        raise ValueError(
            f"The environments passed are {envs.num_envs}. Received: num_envs="
            f"{num_envs}. Leave `num_envs` out, or make as many as you want."
        )
    return envs
