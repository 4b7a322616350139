"""Names for environments, and what their creators are told."""

import importlib
from typing import NamedTuple

import gymnasium

from kerasrl.checks import nearest

# Filled by `register_env`; a string "module:attribute" is imported when first used.
_CREATORS = {
    "Agreement-v1": "kerasrl.testing:AgreementEnv",
    "BitFlipping-v1": "kerasrl.testing:BitFlippingEnv",
    "StatelessCartPole-v1": "kerasrl.testing:StatelessCartPole",
    "StatelessPendulum-v1": "kerasrl.testing:StatelessPendulum",
}


class EnvContext(dict):
    """The `env_config` given by the user, and which environment is being made.

    A plain dict with attributes, so that a creator may read `context["level"]`.

    Args:
        config: dict of settings, or None.
        worker_index: integer from 1, 0 when environments are in the learner's process.
        vector_index: integer, index of the environment among those of its worker.
        num_workers: integer, number of worker processes, 0 if there are none.
        env_index: integer, index of the environment among all, whatever the number of
            workers.
        render_mode: string or None, the render mode asked for.

    Example:

    ```python
    register_env("corridor", lambda context: Corridor(context["length"]))
    make_envs("corridor", env_config={"length": 5})
    ```
    """

    def __init__(
        self,
        config=None,
        worker_index=0,
        vector_index=0,
        num_workers=0,
        render_mode=None,
        env_index=None,
    ):
        super().__init__({} if config is None else config)
        self.worker_index = worker_index
        self.vector_index = vector_index
        self.num_workers = num_workers
        self.render_mode = render_mode
        self.env_index = vector_index if env_index is None else env_index


class WorkerShare(NamedTuple):
    """Which environments of a run a process makes.

    Args:
        worker_index: integer, from 1; 0 without workers.
        num_workers: integer.
        first_index: integer, index of the first of them among all.
        num_envs: integer, environments in all.
    """

    worker_index: int = 0
    num_workers: int = 0
    first_index: int = 0
    num_envs: int | None = None


def register_env(name, creator):
    """Gives an environment a name that `fit` and the command line understand.

    Registered names come before gymnasium's ids. Registering a name again replaces it.

    Args:
        name: string.
        creator: callable taking an `EnvContext` (or nothing) and returning a
            `gymnasium.Env`, for instance a class; or a string `"module:attribute"`
            that names one.

    Raises:
        TypeError: if `name` is not a string or `creator` neither callable nor string.
        ValueError: if a string `creator` has no colon.

    Example:

    ```python
    register_env("corridor", lambda context: Corridor(context["length"]))
    agent.fit("corridor", steps=10_000, env_config={"length": 5})
    ```
    """
    if not isinstance(name, str) or not name:
        raise TypeError(f"`name` must be a non-empty string. Received: {name!r}.")
    if isinstance(creator, str):
        if ":" not in creator:
            raise ValueError(
                "A `creator` given as a string must read 'module:attribute'. "
                f"Received: {creator!r}."
            )
    elif not callable(creator):
        raise TypeError(
            "`creator` must be callable, taking an EnvContext and returning a "
            f"gymnasium.Env. Received: {creator!r}."
        )
    _CREATORS[name] = creator


def registered_envs():
    """The names known to `register_env`, sorted."""
    return sorted(_CREATORS)


def find_creator(name, load=True):
    """The creator registered under `name`, or None.

    Args:
        name: String.
        load: Whether one that was given as "module:attribute" is imported.
    """
    creator = _CREATORS.get(name)
    if load and isinstance(creator, str):
        module, _, attribute = creator.partition(":")
        creator = getattr(importlib.import_module(module), attribute)
    return creator


def unknown_env_error(name):
    """A ValueError that names the known environment nearest to `name`."""
    return ValueError(
        f"Unknown environment {name!r}. "
        f"{nearest(name, {*_CREATORS, *gymnasium.registry})} Expected a gymnasium id "
        "or a name given to kerasrl.register_env (import the module that registers it "
        "first)."
    )
