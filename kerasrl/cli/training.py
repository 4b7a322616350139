"""`kerasrl train`."""

from typing import Any

import click

from kerasrl.cli.common import (
    SEED,
    Command,
    WholeNumber,
    check_algorithm,
    choose,
    common_options,
    first_given,
    load_agent,
    recorded_env,
    run,
    run_params,
    show_evaluation,
    start,
)
from kerasrl.cli.directory import choose_directory, run_directory
from kerasrl.cli.sweeping import train_sweep
from kerasrl.experiment import (
    EVAL_EPISODES,
    FIT,
    TEXT,
    Settings,
    check,
    choose_steps,
    find_algorithm,
    import_module,
    listeners,
    make_agent,
    make_checkpoints,
    make_evaluation,
    make_optimizer,
    make_stop,
    optional,
    parse_assignments,
    parse_json,
    read_experiments,
    read_stop,
    refuse,
    split_config,
)
from kerasrl.experiment.resources import use_resources
from kerasrl.experiment.tuned_settings import TunedSettings, tuned
from kerasrl.tuning.planning import is_sweep

#: What `--progress` means to `fit`.
VERBOSE = {"bar": 1, "lines": 2, "none": 0}


@click.command(cls=Command)
@click.argument("algorithm", required=False, metavar="[ALGO]")
@click.argument("environment", required=False, metavar="[ENV]")
@click.option(
    "--run", "run_name", metavar="ALGO", help="The same as the argument ALGO."
)
@click.option("--env", "env_name", metavar="ENV", help="The same as the argument ENV.")
@click.option(
    "--steps",
    type=WholeNumber(1),
    help="Environment steps. Default: 100,000; with --stop, no limit.",
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
@click.option(
    "--tuned",
    is_flag=True,
    help="Begin with the tuned settings and steps of ALGO on ENV, of which all others "
    "here go first. `kerasrl tuned` lists them.",
)
@click.option(
    "--data",
    metavar="DIR",
    help="Learn from a data set, --steps gradient steps. ENV is what the agent is "
    "evaluated in.",
)
@click.option(
    "--offline",
    metavar="DIR",
    help="A data set beside what is collected: custom_loss of the policy finds a batch "
    "of it in each gradient step, or --offline-ratio mixes it into replay.",
)
@click.option(
    "--offline-batch-size", type=WholeNumber(1), help="Samples of that batch."
)
@click.option(
    "--offline-ratio",
    type=float,
    help="The share of each batch of replay that is of the data set.",
)
@click.option("--seed", type=SEED, help="Seed of weights, environments, exploration.")
@click.option("--num-envs", type=WholeNumber(1), help="Environments at once.")
@click.option(
    "--num-workers",
    type=WholeNumber(0),
    help="Processes that the environments are spread over. Default 0: this one.",
)
@click.option("--env-config", metavar="JSON", help="Arguments of the environment.")
@click.option(
    "--checkpoint-freq",
    type=WholeNumber(0),
    help="Iterations between checkpoints. Default 10; 0 keeps the best and the last.",
)
@click.option("--logdir", metavar="DIR", help="Directory of the run.")
@click.option(
    "--output",
    metavar="DIR",
    help="Write whole episodes into a data set as they happen.",
)
@click.option(
    "--resume", metavar="CHECKPOINT", help="Go on from a checkpoint, in its directory."
)
@click.option(
    "--slots",
    type=WholeNumber(1),
    help="Of a sweep, a file with a grid_search or several experiments: trials at "
    "once. Default: as many as there are cores for.",
)
@click.option(
    "--dry-run", is_flag=True, help="Of a sweep: show the trials, and run nothing."
)
@click.option(
    "--distribute",
    metavar="ENGINE",
    help="Learn with several replicas: mirrored (all GPUs), mirrored:N, multiworker "
    "(as TF_CONFIG says) or horovod (started by horovodrun).",
)
@click.option(
    "--elastic",
    is_flag=True,
    help="Go on from the last checkpoint in --logdir when the command is started "
    "again or, under horovodrun --min-np, with the ranks that are left. --steps counts "
    "the whole run.",
)
@click.option("--eager", is_flag=True, help="Run updates line by line, for debugging.")
@click.option(
    "--eval-episodes",
    type=WholeNumber(0),
    help=f"Episodes of an evaluation. Default: {EVAL_EPISODES}.",
)
@click.option(
    "--eval-freq",
    type=WholeNumber(0),
    help="Environment steps between evaluations while training; they are logged, and "
    "decide which checkpoint is the best. Default 0: one at the end.",
)
@click.option(
    "--progress",
    type=click.Choice(list(VERBOSE)),
    default="bar",
    show_default=True,
    help="How to show progress: one line with a bar (in a pipe, a line from time to "
    "time), a line an epoch, or not.",
)
@common_options
def train(**options: Any) -> None:
    """Train ALGO on ENV, then evaluate it.

    \b
    kerasrl train PPO CartPole-v1 --steps 100000 --set gamma=0.98
    kerasrl train PPO CartPole-v1 --tuned
    kerasrl train --run PPO --env CartPole-v1 --config '{"lr": 0.001}'
    kerasrl train -f experiment.yaml
    kerasrl train MARWIL CartPole-v1 --data runs/cartpole --steps 5000
    """
    start(options["verbosity"])
    run(lambda: train_command(**options), options["verbosity"])


def train_command(**options: Any) -> None:
    """Train in the scope of the replicas that were asked for, or run a sweep."""
    if options["file"]:
        found = read_experiments(options["file"])
        if is_sweep(found):
            train_sweep(found, options)
            return
    for name in ("slots", "dry_run"):
        if options[name]:
            refuse(
                f"--{name.replace('_', '-')} is for a sweep: several experiments, a "
                "grid_search, distributions, num_samples or seeds in FILE.yaml."
            )
    command = train_elastic if options["elastic"] else train_once
    if options["distribute"] is None:
        command(**options)
        return
    from kerasrl.distribute import open_scope

    # Before anything else uses TensorFlow.
    try:
        scope = open_scope(options["distribute"])
    except ValueError as error:
        refuse(f"--distribute: {error}")
    with scope:
        command(**options)


def train_elastic(**options: Any) -> None:
    """Train from the last checkpoint of the run, again whenever ranks are lost."""
    from kerasrl.distribute import run_elastic

    if options["logdir"] is None or options["resume"] is not None:
        refuse(
            "--elastic goes on from the last checkpoint in --logdir DIR: give that, "
            "and not --resume."
        )
    run_elastic(
        lambda checkpoint: train_once(**{**options, "resume": checkpoint}),
        options["logdir"],
    )


def train_once(**options: Any) -> None:
    """Put together what files and options say, make or load the agent, train it."""
    for module in options["modules"]:
        import_module(module)
    experiment: dict[str, Any] = {}
    if options["file"]:
        ((_, experiment),) = read_experiments(options["file"]).items()
        for name in ("run", "env"):
            check(name, experiment.get(name), optional(TEXT))
    config = dict(experiment.get("config") or {})
    config.update(parse_json("--config", options["config"]))
    config.update(parse_assignments(options["assignments"]))
    for name in ("seed", "num_envs", "num_workers"):
        if options[name] is not None:
            config[name] = options[name]
    if options["env_config"] is not None:
        config["env_config"] = parse_json("--env-config", options["env_config"])
    config = use_resources(config)
    run_name = choose(
        "ALGO", options["algorithm"], options["run_name"], experiment.get("run")
    )
    env = choose("ENV", options["environment"], options["env_name"], None)
    env_of_config = config.pop("env", None)
    if env_of_config is not None:
        env_of_config = check("env", env_of_config, TEXT)
    env = env or env_of_config or experiment.get("env")
    stop = read_stop(
        parse_json("--stop", options["stop"]) or experiment.get("stop") or {}
    )
    steps = options["steps"] or experiment.get("steps")
    if options["tuned"]:
        found = find_tuned(run_name, env, options)
        config = found.changed(config).config
        if "env_steps" not in stop:
            steps = steps or found.steps

    if options["resume"]:
        agent, settings = resumed_agent(
            options["resume"], run_name, config, same_command=options["elastic"]
        )
        settings.fit = {**run_params(options["resume"]), **settings.fit}
        env = env or recorded_env(options["resume"], agent)
    elif run_name is None:
        refuse("Which algorithm? `kerasrl train ALGO ENV`; `kerasrl list` names them.")
    else:
        algorithm = find_algorithm(run_name)
        settings = split_config(config, algorithm)
        agent = None
    if env is None:
        refuse(
            "Which environment? `kerasrl train ALGO ENV`; `kerasrl list` names some."
        )
    env = check_env_name(env, settings.fit, agent or algorithm)
    data = None if options["data"] is None else load_data("--data", options["data"])
    options = {**options, "offline": read_offline(options)}
    if agent is None:
        # What is misspelt has been refused by now: this takes seconds.
        agent = make_agent(algorithm, settings)
    agent.compile(
        optimizer=make_optimizer(agent, settings, resumed=bool(options["resume"])),
        run_eagerly=bool(options["eager"] or experiment.get("eager")),
    )
    steps = choose_steps(steps, stop, agent.counted)
    if options["elastic"]:
        # Those of the run as a whole, of which some are in the checkpoint.
        steps -= int(getattr(agent, agent.counted))
        if steps <= 0:
            if agent.replicas.is_chief:
                click.echo(f"All steps are done. Checkpoint: {options['resume']}")
            return
    learns_from = env if data is None else data
    train_agent(agent, env, learns_from, steps, stop, settings, options, experiment)


def find_tuned(
    run_name: str | None, env: str | None, options: dict[str, Any]
) -> TunedSettings:
    """What `--tuned` asks for."""
    if run_name is None or env is None:
        refuse("--tuned is for an algorithm in an environment: name both.")
    if options["resume"] and not options["elastic"]:
        refuse("--tuned makes an agent, and --resume has one, with its settings.")
    found = tuned(find_algorithm(run_name).__name__, env)
    if options["data"] is not None and found.data is None:
        refuse("--tuned settings are of training in an environment, --data is not.")
    if options["data"] is None and found.data is not None:
        refuse(
            f"--tuned settings are of learning from data ({found.data}): give --data."
        )
    return found


def train_agent(
    agent: Any,
    env: str,
    learns_from: Any,
    steps: int,
    stop: dict[str, Any],
    settings: Settings,
    options: dict[str, Any],
    experiment: dict[str, Any],
) -> None:
    """Run `fit` with the callbacks of a run directory, then evaluate."""
    from kerasrl.workers import stacks

    stacks.register()
    episodes = first_given(
        options["eval_episodes"], experiment.get("eval_episodes"), EVAL_EPISODES
    )
    evaluation = make_evaluation(
        env,
        settings.fit.get("env_config"),
        first_given(options["eval_freq"], experiment.get("eval_freq"), 0),
        episodes,
    )
    stop_on = make_stop(stop, agent, options["modules"], evaluation) if stop else None
    every = first_given(
        options["checkpoint_freq"], experiment.get("checkpoint_freq"), 10
    )
    asked = choose_directory(options, experiment)
    with run_directory(asked, agent, env) as directory:
        # One that was named is not to be removed.
        own = options["resume"] if options["elastic"] else None
        checkpoint = make_checkpoints(directory, every, evaluation, resumed_from=own)
        try:
            agent.fit(
                learns_from,
                steps=steps,
                callbacks=listeners(
                    agent, directory, settings, evaluation, stop_on, checkpoint
                ),
                verbose=VERBOSE[options["progress"]],
                output=options["output"],
                **options["offline"],
                **settings.fit,
            )
        except KeyboardInterrupt:
            click.echo(f"Interrupted. Run directory: {directory}")
            if checkpoint.last_path is not None:
                click.echo(f"Go on with: kerasrl train --resume {checkpoint.last_path}")
            raise
    if not agent.replicas.is_chief:
        agent.replicas.barrier()
        return
    if stop_on is not None and stop_on.reason:
        click.echo(f"Stopped: {stop_on.reason}")
    if episodes:
        show_evaluation(
            agent.evaluate(
                env,
                episodes=episodes,
                env_config=settings.fit.get("env_config"),
                seed=0,
                verbose=int(options["progress"] != "none"),
            )
        )
    click.echo(f"Checkpoint: {checkpoint.last_path}")
    click.echo(f"Run directory: {directory}")
    agent.replicas.barrier()


def read_offline(options: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `fit` about a data set beside what is collected."""
    names = ("offline", "offline_batch_size", "offline_ratio")
    found = {name: options[name] for name in names if options[name] is not None}
    if found and "offline" not in found:
        refuse(
            f"--{next(iter(found)).replace('_', '-')} is about a data set: name it "
            "with --offline DIR."
        )
    if found:
        found["offline"] = load_data("--offline", found["offline"])
    return found


def load_data(option: str, path: str) -> Any:
    """The data set of an option."""
    from kerasrl.offline import load

    try:
        return load(path)
    except (OSError, ValueError) as error:
        refuse(f"{option}: {error}")


def check_env_name(env: Any, fit: dict[str, Any], learner: Any) -> str:
    """Make the environment once: a bad choice ends the command before it starts."""
    from kerasrl.envs import make_envs
    from kerasrl.workers import check_settings

    names = ("num_envs", "num_workers", "worker_mode", "env_timeout", "cluster")
    check_settings(**{name: fit[name] for name in names if name in fit})
    if hasattr(learner, "check_env"):
        # It is of several agents.
        try:
            learner.check_env(env, fit.get("env_config"))
        except (ImportError, TypeError) as error:
            refuse(str(error))
        return str(env)
    make_envs(env, num_envs=1, env_config=fit.get("env_config")).close()
    return str(env)


def resumed_agent(
    checkpoint: str,
    run_name: str | None,
    config: dict[str, Any],
    same_command: bool = False,
) -> tuple[Any, Settings]:
    """A loaded agent, and the few settings that may change on the way."""
    agent = load_agent(checkpoint)
    check_algorithm(checkpoint, agent, run_name)
    settings = split_config(config, type(agent))
    if same_command:
        # It has made the agent of the checkpoint.
        kept = Settings()
        kept.fit = settings.fit
        return agent, kept
    fixed = [*settings.agent, *settings.policy]
    if settings.optimizer_name or set(settings.optimizer) - {"learning_rate"}:
        fixed.append("optimizer")
    if fixed:
        refuse(
            f"{', '.join(fixed)} cannot change with --resume: hyperparameters are in "
            f"the checkpoint. Expected: learning_rate, {', '.join(FIT)}."
        )
    return agent, settings
