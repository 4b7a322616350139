"""Films of the agent during training."""

import importlib.util
from pathlib import Path
from typing import Any

from kerasrl.callbacks.callback import Callback


class VideoRecorder(Callback):
    """Films a few evaluation episodes every so many epochs.

    Uses `gymnasium.wrappers.RecordVideo` on an environment of its own, so that training
    is neither slowed by rendering nor disturbed. Files are
    `<env>-steps-<env_steps>-episode-<i>.mp4`.

    Needs the extra `video`: `pip install "kerasrl[video]"`.

    Args:
        env: an id, a registered name or a factory that can be made with
            `render_mode="rgb_array"`.
        directory: str or path of the films.
        every_epochs: int, film at the end of every so many epochs.
        episodes: int, how many episodes each time.
        deterministic: bool, take the distribution's mode instead of a sample.
        seed: int or None, of the filmed episodes.
        env_config: dict or None, for making the environment.

    Raises:
        ImportError: if moviepy is not installed.
        ValueError: for a non-positive number, or an environment that cannot be
            rendered.

    Example:

    ```python
    film = kerasrl.callbacks.VideoRecorder("CartPole-v1", "videos", every_epochs=50)
    agent.fit("CartPole-v1", steps=100_000, callbacks=[film])
    ```
    """

    chief_only = True

    def __init__(
        self,
        env: Any,
        directory: str | Path,
        every_epochs: int = 50,
        episodes: int = 1,
        deterministic: bool = True,
        seed: int | None = 0,
        env_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("every_epochs", every_epochs), ("episodes", episodes)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1. Received: {value}")
        check_video_dependencies()
        self.env = env
        self.directory = Path(directory).expanduser()
        self.every_epochs = every_epochs
        self.episodes = episodes
        self.deterministic = deterministic
        self.seed = seed
        self.env_config = env_config

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if (epoch + 1) % self.every_epochs:
            return
        record(
            self.agent,
            self.env,
            self.directory,
            episodes=self.episodes,
            deterministic=self.deterministic,
            seed=self.seed,
            env_config=self.env_config,
        )


def check_video_dependencies() -> None:
    """Raise an `ImportError` that names the extra if films cannot be written."""
    if importlib.util.find_spec("moviepy") is None:
        raise ImportError(
            "Recording videos needs moviepy, which is not installed. Install the "
            'extra: pip install "kerasrl[video]"'
        )


def record(
    agent: Any,
    env: Any,
    directory: str | Path,
    episodes: int = 1,
    deterministic: bool = True,
    seed: int | None = None,
    env_config: dict[str, Any] | None = None,
) -> dict[str, float]:
    """Evaluate an agent and film every episode.

    Args:
        agent: a built agent.
        env, directory, episodes, deterministic, seed, env_config: see `VideoRecorder`.

    Returns:
        What `agent.evaluate` returns.

    Raises:
        ImportError: if moviepy is not installed.
        ValueError: if the environment cannot be rendered.
    """
    check_video_dependencies()
    from gymnasium.wrappers import RecordVideo

    from kerasrl.envs import make_envs

    envs = make_envs(env, num_envs=1, env_config=env_config, render_mode="rgb_array")
    try:
        single = envs.foreach(lambda each: each)[0]
        recorder = RecordVideo(
            single,
            str(directory),
            # The reset after the last episode must not start another film.
            episode_trigger=lambda index: index < episodes,
            name_prefix=f"{envs.name.replace('/', '-')}-steps-{int(agent.env_steps)}",
        )
        try:
            return agent.evaluate(
                recorder,
                episodes=episodes,
                deterministic=deterministic,
                seed=seed,
                verbose=0,
            )
        finally:
            recorder.close()
    finally:
        envs.close()
