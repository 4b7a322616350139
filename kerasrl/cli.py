"""The `kerasrl` command.

TensorFlow is imported only by the commands that need it, once its messages have been
silenced; `kerasrl --help` answers at once.
"""

import importlib
import inspect
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from kerasrl.experiment import (
    FIT,
    Settings,
    constructor_arguments,
    first_line,
    parse_assignments,
    parse_json,
    read_experiment,
    read_stop,
    refuse,
    split_config,
    unknown,
)

DEFAULT_STEPS = 100_000
#: Steps when only `--stop` says when to end.
UNLIMITED_STEPS = 100_000_000


class BadInput(click.ClickException):
    """Something the user can mend."""

    exit_code = 2


class FailedRun(click.ClickException):
    """Anything else that ended a command."""

    exit_code = 1


class Group(click.Group):
    """A group that names the nearest command when it does not know one."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            if not args[0].startswith("-"):
                names = self.list_commands(ctx)
                refuse(unknown("command", args[0], names))
        return super().resolve_command(ctx, args)


# What the commands share ------------------------------------------------------


def quiet_tensorflow(verbosity: int) -> None:
    """Silence TensorFlow; must run before its first import."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if verbosity == 0:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def run(command: Callable[[], None], verbosity: int) -> None:
    """Run a command's body; an error becomes one line, a traceback only with -vv."""
    try:
        command()
    except (click.ClickException, click.Abort, click.exceptions.Exit):
        raise
    except Exception as error:
        if verbosity >= 2:
            traceback.print_exc()
        # Bad input is the user's to mend; anything else is a failed run.
        bad_input = isinstance(error, ValueError | TypeError | ImportError | OSError)
        message = first_line(error)
        if not bad_input:
            message = f"{type(error).__name__}: {message}"
        if verbosity < 2:
            message += " (-vv shows where)"
        raise (BadInput if bad_input else FailedRun)(message) from error


def algorithms() -> dict[str, type]:
    """The agents by name."""
    agents = importlib.import_module("kerasrl.agents")
    classes = {name: getattr(agents, name) for name in agents.__all__}
    bases = (agents.Agent, agents.OnPolicyAgent, agents.OffPolicyAgent)
    return {
        name: cls
        for name, cls in classes.items()
        if inspect.isclass(cls) and issubclass(cls, agents.Agent) and cls not in bases
    }


def find_algorithm(name: str) -> type:
    """The agent class of a name, or of `module:Class`."""
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            found = getattr(import_module(module), attribute)
        except AttributeError:
            refuse(f"The module {module!r} has no {attribute!r}.")
        agent = importlib.import_module("kerasrl.agents").Agent
        if not (inspect.isclass(found) and issubclass(found, agent)):
            refuse(f"{name} is not a subclass of kerasrl.Agent.")
        return found
    known = algorithms()
    by_lower = {each.lower(): cls for each, cls in known.items()}
    if name.lower() not in by_lower:
        refuse(unknown("algorithm", name, known))
    return by_lower[name.lower()]


def import_module(name: str) -> Any:
    """A module by its name; refused with the reason if it cannot be imported."""
    # As `python -m` does: modules of the working directory can be imported.
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        refuse(f"The module {name!r} cannot be imported: {first_line(error)}")


def load_agent(path: str) -> Any:
    """The agent of a checkpoint; for a directory, names the checkpoints in it."""
    if not Path(path).is_file():
        hint = ""
        if Path(path).is_dir():
            found = sorted(each.name for each in Path(path).glob("checkpoint-*"))
            found = [each for each in found if not each.endswith(".json")]
            if found:
                hint = f" It is a directory with {', '.join(found)}: name one of them."
        refuse(f"There is no checkpoint at {path}.{hint}")
    return importlib.import_module("kerasrl.checkpoint").load(path)


def check_algorithm(checkpoint: str, agent: Any, run_name: str | None) -> None:
    """Refuse a checkpoint of another algorithm than the one named."""
    if run_name is not None and find_algorithm(run_name) is not type(agent):
        refuse(
            f"{checkpoint} is a checkpoint of {type(agent).__name__}, not of "
            f"{run_name}."
        )


def run_params(checkpoint: str) -> dict[str, Any]:
    """What `params.json` beside a checkpoint says about `fit`; empty without one."""
    try:
        text = (Path(checkpoint).parent / "params.json").read_text(encoding="utf-8")
        return dict(json.loads(text).get("settings") or {})
    except (OSError, ValueError):
        return {}


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: options of every command."""
    for option in (
        click.option(
            "-v",
            "--verbose",
            "verbosity",
            count=True,
            help="Show TensorFlow's messages; -vv also shows tracebacks.",
        ),
        click.option(
            "--import",
            "modules",
            multiple=True,
            metavar="MODULE",
            help="Import a module first, one that registers environments. Repeatable.",
        ),
    ):
        function = option(function)
    return function


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="kerasrl", prog_name="kerasrl")
def main() -> None:
    """Deep reinforcement learning in Keras 3."""


# train ------------------------------------------------------------------------


@main.command()
@click.argument("algorithm", required=False, metavar="[ALGO]")
@click.argument("environment", required=False, metavar="[ENV]")
@click.option(
    "--run", "run_name", metavar="ALGO", help="The same as the argument ALGO."
)
@click.option("--env", "env_name", metavar="ENV", help="The same as the argument ENV.")
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help=f"Environment steps. Default: {DEFAULT_STEPS:,}; with --stop, no limit.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="A hyperparameter, such as gamma=0.98, learning_rate=1e-3, num_envs=16, "
    "policy.hidden_units=[32,32] or optimizer.epsilon=1e-7. Repeatable.",
)
@click.option("--config", metavar="JSON", help="Hyperparameters as a JSON object.")
@click.option(
    "--stop",
    metavar="JSON",
    help="Stop criteria, such as '{\"episode_return_mean\": 475}'.",
)
@click.option(
    "-f", "--file", metavar="FILE.yaml", help="An experiment in RLlib's YAML layout."
)
@click.option("--seed", type=int, help="Seed of weights, environments and exploration.")
@click.option("--num-envs", type=click.IntRange(min=1), help="Environments at once.")
@click.option(
    "--num-workers",
    type=click.IntRange(min=0),
    help="Processes that the environments are spread over. Default 0: this one.",
)
@click.option("--env-config", metavar="JSON", help="Arguments of the environment.")
@click.option(
    "--checkpoint-freq",
    type=click.IntRange(min=0),
    help="Iterations between checkpoints. Default 10; 0 keeps the best and the last.",
)
@click.option("--logdir", metavar="DIR", help="Directory of the run.")
@click.option(
    "--resume", metavar="CHECKPOINT", help="Go on from a checkpoint, in its directory."
)
@click.option(
    "--distribute",
    metavar="ENGINE",
    help="Learn with several replicas: mirrored (all GPUs), mirrored:N, multiworker "
    "(as TF_CONFIG says) or horovod (started by horovodrun).",
)
@click.option("--eager", is_flag=True, help="Run updates line by line, for debugging.")
@click.option(
    "--eval-episodes",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Episodes of the evaluation at the end.",
)
@click.option(
    "--progress",
    type=click.Choice(["bar", "lines", "none"]),
    default="bar",
    show_default=True,
    help="How to show progress.",
)
@common_options
def train(**options: Any) -> None:
    """Train ALGO on ENV, then evaluate it.

    \b
    kerasrl train PPO CartPole-v1 --steps 100000 --set gamma=0.98
    kerasrl train --run PPO --env CartPole-v1 --config '{"lr": 0.001}'
    kerasrl train -f experiment.yaml
    """
    quiet_tensorflow(options["verbosity"])
    run(lambda: train_command(**options), options["verbosity"])


def train_command(**options: Any) -> None:
    """Train in the scope of the replicas that were asked for."""
    if options["distribute"] is None:
        train_once(**options)
        return
    from kerasrl.distribute import open_scope

    # Before anything else uses TensorFlow.
    with open_scope(options["distribute"]):
        train_once(**options)


def train_once(**options: Any) -> None:
    """Put together what files and options say, make or load the agent, train it."""
    for module in options["modules"]:
        import_module(module)
    experiment = read_experiment(options["file"]) if options["file"] else {}
    config = dict(experiment.get("config") or {})
    config.update(parse_json("--config", options["config"]))
    config.update(parse_assignments(options["assignments"]))
    for name in ("seed", "num_envs", "num_workers"):
        if options[name] is not None:
            config[name] = options[name]
    if options["env_config"] is not None:
        config["env_config"] = parse_json("--env-config", options["env_config"])
    run_name = choose(
        "ALGO", options["algorithm"], options["run_name"], experiment.get("run")
    )
    env = choose("ENV", options["environment"], options["env_name"], None)
    env = env or config.pop("env", None) or experiment.get("env")
    config.pop("env", None)
    stop = read_stop(
        parse_json("--stop", options["stop"]) or experiment.get("stop") or {}
    )

    if options["resume"]:
        agent, settings = resumed_agent(options["resume"], run_name, config)
        settings.fit = {**run_params(options["resume"]), **settings.fit}
        env = env or agent.env_name
    else:
        if run_name is None:
            refuse(
                "Which algorithm? `kerasrl train ALGO ENV`; `kerasrl list` names them."
            )
        agent_class = find_algorithm(run_name)
        settings = split_config(config, agent_class)
        agent = agent_class(**settings.agent)
    if env is None:
        refuse(
            "Which environment? `kerasrl train ALGO ENV`; `kerasrl list` names some."
        )
    env = check_env_name(env, settings.fit)
    agent.compile(
        optimizer=make_optimizer(agent, settings, resumed=bool(options["resume"])),
        run_eagerly=options["eager"],
    )
    steps = choose_steps(options["steps"] or experiment.get("steps"), stop)
    train_agent(agent, env, steps, stop, settings, options, experiment)


def train_agent(
    agent: Any,
    env: str,
    steps: int,
    stop: dict[str, Any],
    settings: Settings,
    options: dict[str, Any],
    experiment: dict[str, Any],
) -> None:
    """Run `fit` with the callbacks of a run directory, then evaluate."""
    import kerasrl.callbacks as callbacks
    from kerasrl.callbacks.run_logger import new_run_directory
    from kerasrl.rollouts.workers import stacks

    stacks.register()
    stop_on = [callbacks.StopOn(stop)] if stop else []
    every = first_given(
        options["checkpoint_freq"], experiment.get("checkpoint_freq"), 10
    )
    directory = choose_directory(options, experiment)
    if directory is None and agent.replicas.is_chief:
        directory = new_run_directory(type(agent).__name__, env)
    # The other ranks use the directory of the first.
    directory = Path(agent.replicas.gather_data(str(directory))[0])
    checkpoint = callbacks.AgentCheckpoint(directory, every=every)
    bar = [make_progress_bar(steps)] if options["progress"] == "bar" else []
    try:
        agent.fit(
            env,
            steps=steps,
            callbacks=[
                callbacks.RunLogger(directory, extra={"settings": settings.fit}),
                callbacks.EnvStepTensorBoard(directory),
                checkpoint,
                callbacks.RewardScaleWarning(),
                *bar,
                *stop_on,
            ],
            verbose=2 if options["progress"] == "lines" else 0,
            **settings.fit,
        )
    except KeyboardInterrupt:
        click.echo(f"\nInterrupted. Run directory: {directory}")
        if checkpoint.last_path is not None:
            click.echo(f"Go on with: kerasrl train --resume {checkpoint.last_path}")
        raise
    if not agent.replicas.is_chief:
        agent.replicas.barrier()
        return
    if stop_on and stop_on[0].reason:
        click.echo(f"Stopped: {stop_on[0].reason}")
    if options["eval_episodes"]:
        show_evaluation(
            agent.evaluate(
                env,
                episodes=options["eval_episodes"],
                env_config=settings.fit.get("env_config"),
                seed=0,
            )
        )
    click.echo(f"Checkpoint: {checkpoint.last_path}")
    click.echo(f"Run directory: {directory}")
    agent.replicas.barrier()


def make_progress_bar(steps: int) -> Any:
    """One bar over the whole run, where Keras's has one for every epoch."""
    import keras

    from kerasrl.callbacks import Callback

    shown = {
        "episode_return_mean": "return",
        "evaluation_return_mean": "evaluation",
        "loss": "loss",
        "steps_per_second": "steps/s",
    }

    class ProgressBar(Callback):
        chief_only = True

        def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
            self.start = self.agent.env_steps
            self.bar = keras.utils.Progbar(
                steps, stateful_metrics=list(shown.values()), interval=0.1
            )
            self.next_line = 0

        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            # The last iteration may go past the target.
            done = min(self.agent.env_steps - self.start, steps)
            values = [
                (label, logs[name])
                for name, label in shown.items()
                if logs and not math.isnan(logs.get(name, math.nan))
            ]
            if sys.stdout.isatty():
                self.bar.update(done, values)
            elif done >= self.next_line:
                # A file or a pipe gets about ten lines.
                text = ", ".join(f"{label} {value:.1f}" for label, value in values)
                click.echo(f"{done:,}/{steps:,} steps: {text}")
                self.next_line = min(done + max(steps // 10, 1), steps)

        def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
            if sys.stdout.isatty() and self.agent.env_steps - self.start < steps:
                click.echo()

    return ProgressBar()


def choose(
    what: str, argument: str | None, option: str | None, file: str | None
) -> str | None:
    """The argument, the option, or what the file says; not two that differ."""
    if argument is not None and option is not None and argument != option:
        refuse(f"{what} is given twice: {argument!r} and {option!r}.")
    return first_given(argument, option, file)


def first_given(*values: Any) -> Any:
    """The first that is not `None`."""
    return next((value for value in values if value is not None), None)


def choose_steps(steps: int | None, stop: dict[str, Any]) -> int:
    """Environment steps to train for, from what was asked and when to stop."""
    if steps is not None:
        return steps
    if not stop:
        return DEFAULT_STEPS
    # Counted over the agent's life by the criterion, over this `fit` by the limit.
    limit = stop.get("env_steps")
    return int(limit) if isinstance(limit, int | float) else UNLIMITED_STEPS


def choose_directory(
    options: dict[str, Any], experiment: dict[str, Any]
) -> Path | None:
    """The directory that was asked for, or None for a new one."""
    asked = options["logdir"] or experiment.get("local_dir")
    if asked is None and options["resume"]:
        parent = Path(options["resume"]).resolve().parent
        # A checkpoint that was copied elsewhere has no run beside it.
        return parent if (parent / "params.json").exists() else None
    if asked is None:
        return None
    directory = Path(asked).expanduser()
    if (directory / "result.json").exists() and not options["resume"]:
        refuse(
            f"{directory} holds a run already. Choose another --logdir, or go on with "
            "--resume CHECKPOINT."
        )
    return directory


def check_env_name(env: Any, fit: dict[str, Any]) -> str:
    """Make the environment once: a bad choice ends the command before it starts."""
    from kerasrl.envs import make_envs
    from kerasrl.rollouts.workers import check_settings

    names = ("num_envs", "num_workers", "worker_mode", "env_timeout")
    check_settings(**{name: fit[name] for name in names if name in fit})
    make_envs(env, num_envs=1, env_config=fit.get("env_config")).close()
    return str(env)


def resumed_agent(
    checkpoint: str, run_name: str | None, config: dict[str, Any]
) -> tuple[Any, Settings]:
    """A loaded agent, and the few settings that may change on the way."""
    agent = load_agent(checkpoint)
    check_algorithm(checkpoint, agent, run_name)
    settings = split_config(config, type(agent))
    fixed = [*settings.agent, *settings.policy]
    if settings.optimizer_name or set(settings.optimizer) - {"learning_rate"}:
        fixed.append("optimizer")
    if fixed:
        refuse(
            f"{', '.join(fixed)} cannot change with --resume: hyperparameters are in "
            f"the checkpoint. Expected: learning_rate, {', '.join(FIT)}."
        )
    return agent, settings


def make_optimizer(agent: Any, settings: Settings, resumed: bool) -> Any:
    """The agent's own kind of optimizer unless another one was named."""
    import keras

    arguments = dict(settings.optimizer)
    rate = arguments.get("learning_rate")
    if isinstance(rate, dict):
        rate = keras.optimizers.schedules.deserialize(rate)
        arguments["learning_rate"] = rate
    if resumed:
        if rate is not None:
            agent.policy.optimizer.learning_rate = rate
        return agent.policy.optimizer
    if settings.optimizer_name is None:
        default = agent.default_optimizer()
        cls, config = type(default), default.get_config()
    else:
        cls, config = type(keras.optimizers.get(settings.optimizer_name)), {}
    known = constructor_arguments(cls)
    for name in arguments:
        if name not in known:
            refuse(unknown(f"{cls.__name__} argument", name, known))
    return cls.from_config({**config, **arguments})


def show_evaluation(result: dict[str, float]) -> None:
    """Print the outcome of an evaluation on one line."""
    click.echo(
        f"Evaluation over {int(result['episodes'])} episodes: "
        f"return {result['return_mean']:.1f} +- {result['return_std']:.1f}, "
        f"length {result['length_mean']:.1f}"
    )


# rollout and evaluate ---------------------------------------------------------


def checkpoint_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: arguments of the commands that take a checkpoint."""
    for option in (
        common_options,
        click.option("--seed", type=int, help="Seed of the episodes."),
        click.option(
            "--stochastic",
            is_flag=True,
            help="Sample actions instead of taking the likeliest.",
        ),
        click.option(
            "--episodes",
            type=click.IntRange(min=1),
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
    env = env_name or agent.env_name
    if env is None:
        refuse(f"{checkpoint} does not say which environment it is for. Give --env.")
    if env_config is not None:
        return agent, env, parse_json("--env-config", env_config)
    # What the run was given belongs to the run's environment only.
    same = env == agent.env_name
    return agent, env, run_params(checkpoint).get("env_config") if same else None


@main.command()
@checkpoint_options
def evaluate(verbosity: int, **options: Any) -> None:
    """Evaluate the agent of CHECKPOINT over whole episodes."""
    quiet_tensorflow(verbosity)
    run(lambda: evaluate_command(**options), verbosity)


def evaluate_command(
    episodes: int, stochastic: bool, seed: int | None, **options: Any
) -> None:
    agent, env, env_config = open_checkpoint(**options)
    show_evaluation(
        agent.evaluate(
            env,
            episodes=episodes,
            deterministic=not stochastic,
            seed=seed,
            env_config=env_config,
        )
    )


@main.command()
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
    quiet_tensorflow(verbosity)
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
    from kerasrl.callbacks.video_recorder import check_video_dependencies
    from kerasrl.envs import make_envs

    if render and video is not None:
        refuse("--render and --video need different environments: give one of them.")
    if video is not None:
        check_video_dependencies()
    agent, env, env_config = open_checkpoint(**options)
    render_mode = "human" if render else "rgb_array" if video is not None else None
    envs = make_envs(env, num_envs=1, env_config=env_config, render_mode=render_mode)
    try:
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
            recorder, episodes=episodes, deterministic=not stochastic, seed=seed
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
            self.observation, info = self.env.reset(**kwargs)
            self.episode += 1
            self.total, self.length = 0.0, 0
            return self.observation, info

        def step(self, action: Any) -> Any:
            observation, reward, terminated, truncated, info = self.env.step(action)
            self.total += float(reward)
            self.length += 1
            # Evaluation steps in blocks: what comes after the last episode is not asked
            # for.
            if keep_steps and self.episode < episodes:
                self.steps.append(
                    {
                        "observations": self.observation,
                        "actions": action,
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
            self.observation = observation
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


# stack ------------------------------------------------------------------------


@main.command()
@click.argument("pid", type=int)
def stack(pid: int) -> None:
    """Print what process PID, which trains, and its workers are doing.

    Each of them writes the stacks of its threads, innermost call first. It goes on
    undisturbed, even if it hangs.
    """
    from kerasrl.rollouts.workers import stacks

    for each in (pid, *stacks.workers_of(pid)):
        text = stacks.read(each)
        if text is None:
            refuse(
                f"Process {each} does not train with kerasrl here, or not as this user."
            )
        click.echo(f"{'Learner' if each == pid else 'Worker'}, process {each}:\n{text}")


# list -------------------------------------------------------------------------


@main.command("list")
@click.argument(
    "what", required=False, type=click.Choice(["algorithms", "environments"])
)
@common_options
def list_command(what: str | None, verbosity: int, modules: Iterable[str]) -> None:
    """List the algorithms and the environments that are known by name."""
    quiet_tensorflow(verbosity)

    def show() -> None:
        for module in modules:
            import_module(module)
        if what != "environments":
            show_algorithms()
        if what != "algorithms":
            show_environments()

    run(show, verbosity)


def show_algorithms() -> None:
    click.echo("Algorithms:")
    for name, cls in sorted(algorithms().items()):
        click.echo(f"  {name:<12} {(inspect.getdoc(cls) or '').splitlines()[0]}")


def show_environments() -> None:
    import gymnasium

    from kerasrl.envs.registration import registered_envs

    click.echo("Environments registered with kerasrl:")
    for name in registered_envs():
        click.echo(f"  {name}")
    click.echo("Environments registered with gymnasium (latest versions):")
    latest: dict[tuple[str | None, str], Any] = {}
    for spec in gymnasium.registry.values():
        key = (spec.namespace, spec.name)
        if key not in latest or (spec.version or 0) >= (latest[key].version or 0):
            latest[key] = spec
    for spec in sorted(latest.values(), key=lambda each: each.id):
        click.echo(f"  {spec.id}")


if __name__ == "__main__":
    main()
