"""What a training asks of the machine, in RLlib's names."""

import math
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import Any

from kerasrl.experiment.refusals import (
    MAPPING,
    check,
    check_all,
    number,
    optional,
    refuse,
    whole,
)

_AMOUNT = number("a number from 0", least=0)
_CORES = number("a number above 0", least=math.ulp(0.0))
KINDS = {
    "num_gpus": optional(_AMOUNT),
    "num_cpus_for_driver": _CORES,
    "num_cpus_per_worker": _CORES,
    "num_gpus_per_worker": _AMOUNT,
    "custom_resources_per_worker": optional(MAPPING),
}
#: What those of a worker are to a cluster, which finds places for workers.
_OF_CLUSTER = {
    "num_cpus_per_worker": "num_cpus",
    "num_gpus_per_worker": "num_gpus",
    "custom_resources_per_worker": "resources",
}
NO_GPU = "num_gpus_per_worker: workers act in NumPy and would not use a GPU. Give 0."


@dataclass(frozen=True)
class Resources:
    """What one training needs of a machine.

    Attributes:
        cores: float, of the learner and its workers.
        gpus: float or None, a share of one or whole ones; None does not say.
        custom: dict from names to amounts of anything else that is scarce.
    """

    cores: float = 1.0
    gpus: float | None = None
    custom: dict[str, float] = field(default_factory=dict)


def split_resources(config: dict[str, Any]) -> tuple[dict[str, Any], Resources]:
    """Take what is asked of the machine out of a configuration.

    Args:
        config: dict of hyperparameters in kerasrl's or RLlib's spelling.

    Returns:
        tuple of the rest of the configuration, and `Resources`: those of the learner
        and `num_workers` times those of a worker. With a `cluster`, which places
        workers, what they ask for is in its entry of the rest instead.

    Raises:
        click.UsageError: for an amount that makes no sense, or that nothing would use.
    """
    given = {name: config[name] for name in KINDS if name in config}
    asked = check_all(given, KINDS)
    workers = check("num_workers", config.get("num_workers"), optional(whole(0))) or 0
    rest = {name: value for name, value in config.items() if name not in KINDS}
    if config.get("cluster") is not None:
        rest["cluster"] = of_cluster(config["cluster"], asked)
        workers = 0
    elif asked.get("num_gpus_per_worker"):
        refuse(NO_GPU)
    gpus = asked.get("num_gpus")
    if gpus is not None and gpus > 1 and gpus % 1:
        refuse(f"num_gpus must be a share of one, or whole ones. Received: {gpus!r}")
    custom = {
        name: workers * check(f"custom_resources_per_worker.{name}", amount, _AMOUNT)
        for name, amount in (asked.get("custom_resources_per_worker") or {}).items()
    }
    custom = {name: amount for name, amount in custom.items() if amount}
    cores = asked.get("num_cpus_for_driver", 1)
    cores += workers * asked.get("num_cpus_per_worker", 1)
    return rest, Resources(float(cores), gpus, custom)


def of_cluster(cluster: Any, asked: dict[str, Any]) -> Any:
    """A cluster whose workers get what is asked for each.

    Args:
        cluster: as for `fit`.
        asked: dict with names of RLlib's.

    Raises:
        click.UsageError: for an amount that the cluster says, too.
    """
    given = {
        name: asked[of] for of, name in _OF_CLUSTER.items() if asked.get(of) is not None
    }
    if not given:
        return cluster
    own = {} if cluster == "ray" else cluster
    if not isinstance(own, dict):
        refuse(
            f"{', '.join(of for of in _OF_CLUSTER if of in asked)} and cluster="
            f"{cluster!r} both say what workers need. Say it in one of them."
        )
    for of, name in _OF_CLUSTER.items():
        if name in own and name in given:
            refuse(f"{of!r} and {name!r} of cluster are the same setting. Give one.")
    return {**own, **given}


def use_resources(config: dict[str, Any]) -> dict[str, Any]:
    """Take out what a single training asks of the machine, and see to it.

    It has to run before TensorFlow starts.

    Returns:
        the rest of the configuration.
    """
    rest, asked = split_resources(config)
    if config.get("cluster") is not None:
        config = {x: v for x, v in config.items() if x not in _OF_CLUSTER}
    for name in ("num_cpus_for_driver", "num_cpus_per_worker"):
        if config.get(name, 1) != 1:
            refuse(
                f"{name} says how many trials run at once; a single training has all "
                "of the machine. Leave it out, or run a sweep: kerasrl tune."
            )
    if config.get("custom_resources_per_worker"):
        refuse(
            "custom_resources_per_worker says how many trials run at once, and would "
            "not change a single training. Leave it out, or run a sweep."
        )
    if asked.gpus is not None:
        wanted, gpus = math.ceil(asked.gpus), visible_gpus()
        if wanted > len(gpus):
            refuse(f"num_gpus is {asked.gpus:g}, but there are {len(gpus)} GPUs here.")
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[:wanted])
        if asked.gpus % 1:
            # Another program is to have the rest of its memory.
            os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    return rest


def visible_gpus() -> list[str]:
    """What `CUDA_VISIBLE_DEVICES` names, or the numbers of all NVIDIA GPUs."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        names = [each.strip() for each in given.split(",")]
        # CUDA stops at the first that is not valid.
        end = next((i for i, x in enumerate(names) if x in ("", "-1")), len(names))
        return names[:end]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        listed = subprocess.run(
            [program, "-L"], capture_output=True, text=True, timeout=30, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(i) for i, x in enumerate(listed.splitlines()) if x.startswith("GPU ")]
