"""What is looked at in a configuration before anything is made of it."""

import copy
import sys

import keras
import numpy as np
import tensorflow as tf

from kerasrl.checkpoint.archive import CheckpointError
from kerasrl.checkpoint.weights import describe_misfit, policy_variables

#: Kinds with which Keras writes plain data.
_PLAIN_KINDS = {
    "__ellipsis__",
    "__keras_tensor__",
    "__numpy__",
    "__slice__",
    "__tensor__",
    "__tuple__",
}
#: Layers of Keras that read files or hold code. Keras refuses them too, by default.
_FOREIGN = {"FlaxLayer", "JaxLayer", "Lambda", "TFSMLayer", "TorchModuleWrapper"}
# Keras configurations may name a module to import a class from. Accepted are classes
# of these, operations of functional models, and what is registered or passed as
# custom_objects.
_MODULES = {
    "keras",
    "keras.constraints",
    "keras.dtype_policies",
    "keras.initializers",
    "keras.layers",
    "keras.losses",
    "keras.metrics",
    "keras.models",
    "keras.optimizers",
    "keras.optimizers.schedules",
    "keras.regularizers",
}
#: Bytes that one value inside the policy may take beyond the arrays of the file, when
#: the policy is called with one observation.
_MOST_BYTES = 2**28


def refuse_unknown(path, config, classes=True):
    """Raises for configurations that would make Keras import or run other code.

    Args:
        path: Of the file, for messages.
        config: JSON-compatible data.
        classes: If false, raises only for what nobody could load: classes of one's own
            need not be registered before they are saved.

    Raises:
        CheckpointError: Naming what is not registered.
    """
    if isinstance(config, list):
        for value in config:
            refuse_unknown(path, value, classes)
    if not isinstance(config, dict):
        return
    if "class_name" in config:
        kind, module = config["class_name"], config.get("module")
        is_function = kind == "function"
        # Keras looks functions up by their config, whatever name is registered.
        name = config.get("config") if is_function else config.get("registered_name")
        name = str(name or kind)
        if not isinstance(kind, str):
            known = False
        elif kind in _FOREIGN:
            known = False
        elif classes and not isinstance(config.get("config"), (dict, str)):
            raise CheckpointError(
                f"{path} is damaged: it has no config for {kind}, whose defaults would "
                "take the place of what was saved."
            )
        elif kind.startswith("__"):
            known = kind in _PLAIN_KINDS
        elif not classes or keras.saving.get_registered_object(name) is not None:
            known = True
        elif is_function:
            known = module == "builtins" and hasattr(keras.activations, name)
        else:
            known = module in _MODULES or _is_operation(module, kind)
        if not known:
            raise CheckpointError(
                f"{path} refers to {module}.{name} ({kind}), which is not registered "
                "here or is code. Import the module that registers it (with "
                "keras.saving.register_keras_serializable), or pass custom_objects "
                "to kerasrl.load."
            )
    for value in config.values():
        refuse_unknown(path, value, classes)


def _is_operation(module, name):
    """Whether a name is that of a model, layer or operation of Keras, imported here.

    Keras writes functional models, and each operation in them, with the module that
    defines it.
    """
    if not str(module).startswith("keras."):
        return False
    found = getattr(sys.modules.get(module), str(name), None)
    return isinstance(found, type) and issubclass(found, keras.Operation)


def refuse_misfits(path, config):
    """Raises for policies that are not of the size of the arrays in the file.

    The policy is made once in a graph, where nothing has content and so nothing takes
    memory: neither weights nor what layers without weights compute.

    Args:
        path: Of the file, for messages.
        config: Dict, the whole configuration.

    Raises:
        CheckpointError: Its variables have other shapes than the file says, or it
            would take far more memory than the file.
    """
    policy = config["config"].get("policy")
    if not isinstance(policy, dict):
        return
    sizes = [int(np.prod(each["shape"], dtype=object)) for each in config["variables"]]
    received = [
        tuple(each["shape"])
        for each in config["variables"]
        if each["path"].startswith("policy/")
    ]
    # Keras makes its generator when it is first asked for a number: not in the graph.
    keras.random.uniform(())
    graph = tf.Graph()
    try:
        # A name, because those of some layers are none for the outermost scope.
        with graph.as_default(), graph.name_scope("policy"):
            # Keras takes apart what it is given.
            made = keras.saving.deserialize_keras_object(copy.deepcopy(policy))
            expected = [tuple(v.shape) for v in policy_variables(made)]
    except Exception:  # What is wrong shows, and is named, where it is made to stay.
        expected = received
    largest = max(
        (
            (output.shape.num_elements() or 0) * output.dtype.size
            for operation in graph.get_operations()
            for output in operation.outputs
        ),
        default=0,
    )
    if largest > _MOST_BYTES + 8 * sum(sizes):
        raise CheckpointError(
            f"{path} describes a policy that computes values of {largest:,} bytes, "
            "far more than the file holds. It is damaged or was made to do harm."
        )
    if expected != received:
        raise CheckpointError(f"{path} {describe_misfit(received, expected)}")
