"""Classes and functions under names, as settings, files and constructors have them."""

from typing import Any

from kerasrl import checks


class Names:
    """What users registered of one kind, by name.

    Args:
        kind: Text, what is registered, such as `"model"`.
        function: Text, the public function that registers it, for messages.
        **known: What has a name from the start.

    Example:

    ```python
    models = Names("model", "kerasrl.register_model", **{"nature": CNN})
    models.find("natur")
    # ValueError: Unknown model 'natur'. Did you mean 'nature'? ...
    ```
    """

    def __init__(self, kind: str, function: str, **known: Any) -> None:
        self.kind = kind
        self.function = function
        self._known: dict[str, Any] = {}
        self._built_in: set[str] = set()
        for name, value in known.items():
            self.build_in(name, value)

    def build_in(self, name: str, value: Any) -> None:
        """Gives something a name that users cannot give to anything else."""
        self.add(name, value)
        self._built_in.add(name)

    def add(self, name: str, value: Any) -> None:
        """Registers something. Registering a name again replaces it.

        Raises:
            TypeError: The name is not a text, or empty.
            ValueError: It is that of something built in.
        """
        if not isinstance(name, str) or not name:
            raise TypeError(f"`name` must be a non-empty string. Received: {name!r}.")
        if name in self._built_in and self._known.get(name, value) is not value:
            raise ValueError(
                f"There is a built-in {self.kind} {name!r}, which checkpoints and "
                "settings rely on. Choose another name."
            )
        self._known[name] = value

    def find(self, name: str) -> Any:
        """Returns what is registered under a name.

        Raises:
            ValueError: Nothing is. The message names the nearest, or all.
        """
        if name in self._known:
            return self._known[name]
        raise ValueError(
            f"Unknown {self.kind} {name!r}. {checks.nearest(str(name), self._known)} "
            f"Names are given by {self.function}: import the module that calls it "
            "first."
        )

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def __iter__(self):
        return iter(sorted(self._known))


def register_with_keras(package: str, name: str, cls: type) -> None:
    """Lets checkpoints name a class, unless they can already.

    Args:
        package: Text, which goes before the name.
        name: Text.
        cls: Class with a `get_config`.
    """
    import keras

    registered = keras.saving.get_registered_name(cls)
    if keras.saving.get_registered_object(registered) is not cls:
        keras.saving.register_keras_serializable(package, name)(cls)
