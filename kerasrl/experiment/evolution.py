"""RLlib's spellings for ES and ARS, where they are more than another name."""

import math
from collections.abc import Iterator
from typing import Any

from kerasrl.experiment.refusals import (
    SHARE,
    TEXT,
    check,
    number,
    refuse,
    whole,
)

_EPISODES = whole(1)
#: What is read here.
KINDS = {
    "episodes_per_batch": _EPISODES,
    "num_rollouts": _EPISODES,
    "rollouts_used": _EPISODES,
    "eval_prob": SHARE,
    "train_batch_size": _EPISODES,
    "noise_size": _EPISODES,
    "report_length": _EPISODES,
    "return_proc_mode": TEXT,
    "action_noise_std": number("a number from 0", least=0),
}


def evolution_arguments(
    key: str, value: Any, config: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    """One entry of RLlib's configuration of ES or ARS, in names of settings.

    RLlib counts episodes, where pairs of them are counted here.

    Args:
        key: a key of `KINDS`.
        value: its value.
        config: all of the configuration.

    Yields:
        pairs of a name and a value.
    """
    value = check(key, value, KINDS[key])
    if key in ("episodes_per_batch", "num_rollouts"):
        yield "num_pairs", math.ceil(value / 2)
    elif key == "rollouts_used":
        yield "num_top", math.ceil(value / 2)
    elif key == "eval_prob":
        counts = ("episodes_per_batch", "num_rollouts")
        episodes = next((config[each] for each in counts if each in config), None)
        if episodes is None:
            refuse(
                "eval_prob is a share of the episodes: give episodes_per_batch or "
                "num_rollouts too, or unperturbed_episodes instead."
            )
        # Some of them in each iteration: nothing else says how good the policy is.
        yield "unperturbed_episodes", max(1, round(value * episodes))
    elif key == "train_batch_size":
        refuse(
            "train_batch_size is a number of steps, and an iteration is 2 * num_pairs "
            "episodes, however many steps they have. Leave it out."
        )
    elif key == "report_length":
        refuse("report_length: logs are of the last 100 episodes. Leave it out.")
    elif key == "return_proc_mode" and value != "centered_rank":
        refuse(f"return_proc_mode must be centered_rank. Received: {value!r}")
    elif key == "action_noise_std" and value:
        refuse(
            "action_noise_std must be 0: actions are the best that the policy knows, "
            "and it is weights that are explored. Give 0, or leave it out."
        )
    # Of noise_size nothing depends: directions are made when they are needed.
