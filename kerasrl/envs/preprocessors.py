"""Preprocessors: wrappers of environments that have a name."""

import gymnasium

from kerasrl import checks
from kerasrl.envs.action_mask import ActionMaskObservation
from kerasrl.names import Names

_PREPROCESSORS = Names(
    "preprocessor", "kerasrl.register_preprocessor", action_mask=ActionMaskObservation
)
#: Entries of `env_config` that are no business of the environment.
_KEYS = ("preprocessor", "preprocessor_config")
_EXPECTED = (
    "Expected a subclass of gymnasium.Wrapper, such as a gymnasium.ObservationWrapper "
    "with the method observation(self, observation), or a function of an environment "
    "that returns a wrapped one"
)


def register_preprocessor(name, wrapper):
    """Gives a wrapper of environments a name for `env_config`.

    `env_config={"preprocessor": "name"}` wraps each environment when it is made: here
    and in worker processes, for `fit`, `evaluate`, `make_envs`, the command line and
    experiment files. Policies see what it returns, also as the spaces that they are
    built for. An entry `"preprocessor_config"` is a dict of its further arguments.
    Registering a name again replaces it.

    Args:
        name: String.
        wrapper: Subclass of `gymnasium.Wrapper`, or a function that takes an
            environment and returns one.

    Raises:
        TypeError: `wrapper` is neither, or the name no text.
        ValueError: The name is that of a built-in one, `"action_mask"`.

    Example:

    ```python
    class Signs(gymnasium.ObservationWrapper):
        def __init__(self, env):
            super().__init__(env)
            self.observation_space = gymnasium.spaces.Box(-1, 1, (4,))

        def observation(self, observation):
            return numpy.sign(observation)

    kerasrl.register_preprocessor("signs", Signs)
    agent.fit("CartPole-v1", steps=10_000, env_config={"preprocessor": "signs"})
    ```
    """
    is_class = isinstance(wrapper, type)
    if not (issubclass(wrapper, gymnasium.Wrapper) if is_class else callable(wrapper)):
        raise TypeError(f"Received wrapper={wrapper!r}. {_EXPECTED}.")
    _PREPROCESSORS.add(name, wrapper)


def split(env_config):
    """Takes what is about a preprocessor out of an `env_config`.

    Args:
        env_config: Dict or `None`.

    Returns:
        Tuple of the rest, dict or `None`, and a function that wraps an environment.

    Raises:
        ValueError: There is no such preprocessor, or only arguments of one.
    """
    if not env_config or not env_config.keys() & set(_KEYS):
        return env_config, lambda env: env
    rest = {key: value for key, value in env_config.items() if key not in _KEYS}
    name = env_config.get("preprocessor")
    config = env_config.get("preprocessor_config")
    if name is None:
        if config is not None:
            raise ValueError(
                f"Received an env_config with preprocessor_config ({config!r}) without "
                "a preprocessor. Name one, or leave it out."
            )
        return rest, lambda env: env
    wrapper = _PREPROCESSORS.find(name)
    config = checks.mapping("preprocessor_config", config, optional=True) or {}

    def wrap(env):
        if not isinstance(env, gymnasium.Env):
            raise ValueError(
                f"The preprocessor {name!r} wraps single environments. Received the "
                f"vector environment {env}. Wrap those that it is made of."
            )
        try:
            wrapped = wrapper(env, **config)
        except TypeError as error:
            error.add_note(f"It was raised by the preprocessor {name!r}, {config}.")
            raise
        if not isinstance(wrapped, gymnasium.Env):
            raise TypeError(
                f"The preprocessor {name!r} returned {wrapped!r}. {_EXPECTED}."
            )
        return wrapped

    return rest, wrap


def registered(env_config):
    """The name and the wrapper that an `env_config` asks for, or `None`."""
    # What is no dict is refused where environments are made.
    config = env_config if isinstance(env_config, dict) else {}
    name = config.get("preprocessor")
    return None if name is None else (name, _PREPROCESSORS.find(name))
