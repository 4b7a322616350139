"""Models by name, and those that have one."""

import keras

from kerasrl import checks, names
from kerasrl.models.impala import ImpalaCNN
from kerasrl.models.trunks import CNN, MLP


def _q_network(**config):
    from kerasrl.models.q_network import QNetwork  # Whose trunks are found by name.

    return QNetwork(**config)


MODELS = names.Names(
    "model",
    "kerasrl.register_model",
    nature=CNN,
    impala=ImpalaCNN,
    mlp=MLP,
    q_network=_q_network,
)
_EXPECTED = (
    "Expected a subclass of kerasrl.models.Policy, or of keras.Layer (which every "
    "keras.Model is) to be the trunk of a built-in policy"
)


def register_model(name, model):
    """Gives a model a name that policies, the command line and files understand.

    `policy="name"` is then such a policy, or the default policy with such a trunk, and
    `policy={"trunk": "name", ...}` one with further arguments. The model's own are said
    with `{"model": "name", "model_config": {...}}`. Registering a name again replaces
    it, but for the built-in `"nature"` (`CNN`), `"impala"` (`ImpalaCNN`), `"mlp"`
    (`MLP`) and `"q_network"` (`QNetwork`).

    A class is also registered with Keras, as `"models>name"` unless it is already:
    checkpoints hold that name, and loading asks for it.

    Args:
        name: String.
        model: Subclass of `kerasrl.models.Policy`, or of `keras.Layer` for a trunk; or
            a function that makes an object of one.

    Raises:
        TypeError: `model` is neither, or the name no text.
        ValueError: The name is that of a built-in model.

    Example:

    ```python
    class Residual(keras.layers.Layer):
        def __init__(self, width=64, **kwargs):
            ...

    kerasrl.register_model("residual", Residual)
    kerasrl.PPO(policy="residual")
    kerasrl.PPO(policy={"model": "residual", "model_config": {"width": 32}})
    kerasrl.PPO(policy={"trunk": "residual", "cell": "lstm"})
    ```
    """
    is_class = isinstance(model, type) and issubclass(model, keras.Layer)
    if not is_class and (isinstance(model, (type, keras.Layer)) or not callable(model)):
        raise TypeError(
            f"Received model={model!r}. {_EXPECTED}, or a function that makes one: "
            "each agent has its own."
        )
    MODELS.add(name, model)
    if is_class:
        names.register_with_keras("models", name, model)


def find_model(value):
    """Returns the class, or function, and its arguments that a value names.

    Args:
        value: A name, or a dict of `"model"`, a name, and perhaps `"model_config"`.

    Returns:
        Tuple of what was registered, and a dict of arguments.

    Raises:
        ValueError: There is no such model, or the dict has other keys.
    """
    if isinstance(value, str):
        return MODELS.find(value), {}
    for key in value:
        if key not in ("model", "model_config"):
            raise ValueError(
                f"Received {value!r} with the key {key!r}. Expected 'model', a name, "
                "and 'model_config', a dict of the model's arguments."
            )
    if "model" not in value:
        raise ValueError(f"Received {value!r}. Expected a name under 'model'.")
    config = checks.mapping("model_config", value.get("model_config"), optional=True)
    return MODELS.find(value["model"]), config or {}


def make_model(found, config):
    """Makes what `find_model` found.

    Returns:
        A `keras.Layer`.

    Raises:
        TypeError: A function returned something else.
    """
    made = found(**config)
    if not isinstance(made, keras.Layer):
        raise TypeError(f"The model {found!r} returned {made!r}. {_EXPECTED}.")
    return made
