"""`kerasrl evaluate` and `kerasrl rollout`."""

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from kerasrl.cli.common import (
    SEED,
    Command,
    WholeNumber,
    check_algorithm,
    common_options,
    load_agent,
    recorded_env,
    run,
    run_params,
    show_evaluation,
    start,
)
from kerasrl.experiment import import_module, parse_json, refuse


def checkpoint_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: arguments of the commands that take a checkpoint."""
    for option in (
        common_options,
        click.option("--seed", type=SEED, help="Seed of the episodes."),
        click.option(
            "--stochastic",
            is_flag=True,
            help="Sample actions instead of taking the likeliest.",
        ),
        click.option(
            "--episodes",
            type=WholeNumber(1),
            default=10,
            show_default=True,
            help="How many.",
        ),
        click.option(
            "--env-config", metavar="JSON", help="Arguments of the environment."
        ),
        click.option("--env", "env_name", metavar="ENV", help="Another environment."),
        click.option("--run", "run_name", metavar="ALGO", help="Checked, if given."),
        click.argument("checkpoint"),
    ):
        function = option(function)
    return function


def open_checkpoint(
    checkpoint: str,
    run_name: str | None,
    env_name: str | None,
    env_config: str | None,
    modules: Iterable[str],
) -> tuple[Any, str, dict[str, Any] | None]:
    """The agent of a checkpoint, its environment and the environment's arguments."""
    for module in modules:
        import_module(module)
    agent = load_agent(checkpoint)
    check_algorithm(checkpoint, agent, run_name)
    env = env_name or recorded_env(checkpoint, agent)
    if env is None:
        refuse(f"{checkpoint} does not say which environment it is for. Give --env.")
    if env_config is not None:
        return agent, env, parse_json("--env-config", env_config)
    # What the run was given belongs to the run's environment only.
    same = env == agent.env_name
    return agent, env, run_params(checkpoint).get("env_config") if same else None


@click.command(cls=Command)
@checkpoint_options
@click.option("--output", metavar="DIR", help="Write the episodes into a data set.")
def evaluate(verbosity: int, **options: Any) -> None:
    """Evaluate the agent of CHECKPOINT over whole episodes."""
    start(verbosity)
    run(lambda: evaluate_command(**options), verbosity)


def evaluate_command(
    episodes: int,
    stochastic: bool,
    seed: int | None,
    output: str | None,
    **options: Any,
) -> None:
    """Load the agent of a checkpoint, evaluate it, print the outcome."""
    agent, env, env_config = open_checkpoint(**options)
    show_evaluation(
        agent.evaluate(
            env,
            episodes=episodes,
            deterministic=not stochastic,
            seed=seed,
            env_config=env_config,
            output=output,
        )
    )


@click.command(cls=Command)
@checkpoint_options
@click.option("--render", is_flag=True, help="Show the environment in a window.")
@click.option("--video", metavar="DIR", help="Write a film of every episode (mp4).")
@click.option("--out", metavar="FILE.npz", help="Write every step to a NumPy archive.")
def rollout(verbosity: int, **options: Any) -> None:
    """Play episodes with the agent of CHECKPOINT, one after the other.

    \b
    The archive of --out holds one row a step: observations (observations/<key> where
    they are nested), actions, rewards, terminated, truncated, episode.
    """
    start(verbosity)
    run(lambda: rollout_command(**options), verbosity)


def rollout_command(
    episodes: int,
    stochastic: bool,
    seed: int | None,
    render: bool,
    video: str | None,
    out: str | None,
    **options: Any,
) -> None:
    """Play episodes one after the other; show, film or write them as asked."""
    from kerasrl.callbacks.video_recorder import check_video_dependencies
    from kerasrl.envs import make_envs
    from kerasrl.envs.rendering import check_display

    if out is not None and Path(out).expanduser().is_dir():
        refuse(f"--out must be a file. Received: the directory {out!r}")
    if render and video is not None:
        refuse("--render and --video need different environments: give one of them.")
    if video is not None:
        check_video_dependencies()
    if render:
        check_display()
    agent, env, env_config = open_checkpoint(**options)
    if hasattr(agent, "check_env"):
        refuse(
            f"{options['checkpoint']} is of several agents, whose steps are in no one "
            "archive or film. Use `kerasrl evaluate`."
        )
    render_mode = "human" if render else "rgb_array" if video is not None else None
    envs = make_envs(env, num_envs=1, env_config=env_config, render_mode=render_mode)
    try:
        # Before films have a directory: the policy may be for other spaces.
        agent.build(envs.observation_space, envs.action_space)
        single = envs.foreach(lambda each: each)[0]
        if video is not None:
            from gymnasium.wrappers import RecordVideo

            single = RecordVideo(
                single,
                video,
                # The reset after the last episode must not start another film.
                episode_trigger=lambda index: index < episodes,
                name_prefix=f"{type(agent).__name__}-{envs.name}".replace("/", "-"),
            )
        recorder = make_recorder(single, episodes, keep_steps=out is not None)
        result = agent.evaluate(
            recorder,
            episodes=episodes,
            deterministic=not stochastic,
            seed=seed,
            verbose=0,
        )
        if video is not None:
            single.close()
            click.echo(f"Videos: {video}")
    finally:
        envs.close()
    show_evaluation(result)
    if out is not None:
        write_steps(out, recorder.steps)
        click.echo(f"Steps: {out}")


def make_recorder(env: Any, episodes: int, keep_steps: bool) -> Any:
    """Wrap an environment so that it prints its episodes and keeps their steps."""
    import gymnasium

    class Recorder(gymnasium.Wrapper):
        def __init__(self) -> None:
            super().__init__(env)
            self.steps: list[dict[str, Any]] = []
            self.episode = -1
            self.total = 0.0
            self.length = 0
            self.observation: Any = None

        def reset(self, **kwargs: Any) -> Any:
            observation, info = self.env.reset(**kwargs)
            self.observation = copy.deepcopy(observation)
            self.episode += 1
            self.total, self.length = 0.0, 0
            return observation, info

        def step(self, action: Any) -> Any:
            # Copied, like observations: environments may write into what they get
            # and into what they gave.
            taken = copy.deepcopy(action)
            observation, reward, terminated, truncated, info = self.env.step(action)
            self.total += float(reward)
            self.length += 1
            # Evaluation steps in blocks: what comes after the last episode is not asked
            # for.
            if keep_steps and self.episode < episodes:
                self.steps.append(
                    {
                        "observations": self.observation,
                        "actions": taken,
                        "rewards": float(reward),
                        "terminated": bool(terminated),
                        "truncated": bool(truncated),
                        "episode": self.episode,
                    }
                )
            if (terminated or truncated) and self.episode < episodes:
                click.echo(
                    f"Episode {self.episode + 1}: return {self.total:.1f}, "
                    f"length {self.length}"
                )
            self.observation = copy.deepcopy(observation)
            return observation, reward, terminated, truncated, info

    return Recorder()


def write_steps(path: str, steps: list[dict[str, Any]]) -> None:
    """Write the columns of a list of steps to a NumPy archive, without pickle."""
    import numpy as np

    columns: dict[str, list[Any]] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                add(f"{name}/{key}", item)
        elif isinstance(value, tuple):
            for index, item in enumerate(value):
                add(f"{name}/{index}", item)
        else:
            columns.setdefault(name, []).append(np.array(value))

    for step in steps:
        for name, value in step.items():
            add(name, value)
    Path(path).expanduser().parent.mkdir(parents=True, exist_ok=True)
    with open(Path(path).expanduser(), "wb") as file:
        np.savez_compressed(
            file,
            allow_pickle=False,
            **{name: np.stack(values) for name, values in columns.items()},
        )
