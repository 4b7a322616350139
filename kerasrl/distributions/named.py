"""Distribution classes and their names, which is what checkpoints and settings hold."""

import keras

from kerasrl import names
from kerasrl.distributions.distribution import Distribution

DISTRIBUTIONS = names.Names("distribution", "kerasrl.register_distribution")


def register_distribution(name, distribution):
    """Gives a distribution a name that policies, the command line and files understand.

    `policy={"distribution": "name"}` then draws actions from it. Registering a name
    again replaces it. The class is also registered with Keras, as
    `"distributions>name"` unless it is already, so that checkpoints can name it.

    Args:
        name: String.
        distribution: Subclass of `kerasrl.distributions.Distribution`.

    Raises:
        TypeError: It is none, or the name no text.
        ValueError: The name is that of a built-in one.

    Example:

    ```python
    kerasrl.register_distribution("logistic", Logistic)
    kerasrl.PPO(policy={"distribution": "logistic"})
    ```
    """
    if not (isinstance(distribution, type) and issubclass(distribution, Distribution)):
        raise TypeError(
            f"Received distribution={distribution!r}. Expected a subclass of "
            "kerasrl.distributions.Distribution."
        )
    DISTRIBUTIONS.add(name, distribution)
    names.register_with_keras("distributions", name, distribution)


def distribution_class(distribution):
    """Returns the class that a class or its name stands for.

    Args:
        distribution: Subclass of `Distribution`, or its name: that given to
            `register_distribution`, that under which
            `keras.saving.register_keras_serializable` knows it, or of a built-in one
            the name of the class.

    Returns:
        Subclass of `Distribution`.

    Raises:
        TypeError: It is, or names, something else.
        ValueError: No class is registered under that name.

    Example:

    ```python
    distribution_class("TanhGaussian")  # <class TanhGaussian>
    ```
    """
    found = distribution
    if isinstance(distribution, str):
        found = _found(distribution)
    if not isinstance(found, type) or not issubclass(found, Distribution):
        raise TypeError(
            f"Received distribution={distribution!r}. Expected a subclass of "
            "kerasrl.distributions.Distribution or its registered name; for the parts "
            "of a Dict or Tuple action space, a dict or tuple of them."
        )
    return found


def distribution_name(distribution):
    """Returns the name that brings a distribution class back.

    Args:
        distribution: `None`, a class or name as for `distribution_class`, or a dict,
            list or tuple of them.

    Returns:
        The same with strings in place of classes.

    Raises:
        TypeError: A class is not registered, or is no distribution.
        ValueError: No class is registered under a name.

    Example:

    ```python
    distribution_name(kerasrl.distributions.Bernoulli)  # "kerasrl>Bernoulli"
    ```
    """
    if distribution is None:
        return None
    if isinstance(distribution, dict):
        return {key: distribution_name(part) for key, part in distribution.items()}
    if isinstance(distribution, (list, tuple)):
        return [distribution_name(part) for part in distribution]
    found = distribution_class(distribution)
    # Of what users register, the class: another may have the name by then.
    if isinstance(distribution, str) and distribution not in DISTRIBUTIONS:
        return distribution
    name = keras.saving.get_registered_name(found)
    if keras.saving.get_registered_object(name) is not found:
        raise TypeError(
            f"Received distribution={found.__name__}, which checkpoints could not "
            "name. Decorate the class with "
            "@keras.saving.register_keras_serializable('package'), or give it a name "
            "with kerasrl.register_distribution."
        )
    return name


def _found(name):
    if name not in DISTRIBUTIONS:
        found = keras.saving.get_registered_object(name)
        if found is not None:
            return found
    return DISTRIBUTIONS.find(name)
