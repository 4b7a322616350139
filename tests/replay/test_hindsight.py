"""Transitions with other goals: against a slow reference, and by hand."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_helpers import ACTIONS, EXTRAS
from replay_reference import World, frame_observer, surviving_steps

from kerasrl import envs, goals, testing
from kerasrl.replay import GOAL_STRATEGIES, HindsightReplayBuffer
from kerasrl.rollouts import Rollout

GAMMA = 0.9
NUMBER = spaces.Box(-np.inf, np.inf, (1,))
FRAMES = 2
SPACE = spaces.Dict(
    {
        "observation": spaces.Box(0, 255, (FRAMES, 2), np.uint8),
        "achieved_goal": NUMBER,
        "desired_goal": spaces.Box(-1e6, 0.0, (1,)),
    }
)


def observer(rng, env, padding):
    """Achieved goals are unique and positive, desired ones unique and negative."""
    frames, count = frame_observer(rng, FRAMES, padding, shape=(2,)), 1000 * env
    desired = None

    def observe(is_first):
        nonlocal count, desired
        count += 1
        desired = np.float32([-count]) if is_first else desired
        return {
            "observation": frames(is_first),
            "achieved_goal": np.float32([count]),
            "desired_goal": desired,
        }

    return observe


def compute_reward(achieved, desired, infos):
    said = infos["said"] if infos else 0.0
    assert np.shape(achieved)[-1:] == np.shape(desired)[-1:] == (1,)
    return np.sin(achieved + 3.0 * desired)[..., 0] + np.nan_to_num(said)


def compute_terminated(achieved, desired, infos):
    return ((achieved + desired) % 4 == 0)[..., 0]


def one_at_a_time(function):
    """A function that knows nothing of many steps at once."""

    def ask(achieved, desired, infos):
        return function(achieved, desired, infos) if achieved.ndim == 1 else False

    return ask


def episodes_of(history, alive):
    """The steps of a history whose actions are alive, in lists not to be joined."""
    episodes, before = [], None
    for step in history:
        if step.action not in alive:
            continue
        if before is None or before.ended or step.after_cut or step.after_loss:
            episodes.append([])
        episodes[-1].append(step)
        before = step
    return episodes


def goals_of(episode, index, strategy):
    """Achieved goals that may become that of a step, by definition."""
    achieved = [float(step.next_observation["achieved_goal"][0]) for step in episode]
    chosen = {"future": achieved[index:], "final": achieved[-1:], "episode": achieved}
    return set(chosen[strategy])


def transition(episode, index, goal, n_step, terminates, keeps_infos):
    """The sample of a step for another goal (`None`: its own), by definition."""
    first, taken, rewards = episode[index], [], 0.0
    for step in episode[index : index + n_step]:
        taken.append(step)
        achieved = step.next_observation["achieved_goal"]
        terminated, reward = step.terminated, step.reward
        if goal is not None:
            infos = {"said": step.info} if keeps_infos else {}
            reward = compute_reward(achieved, np.float32([goal]), infos)
            if terminates:
                terminated = bool(compute_terminated(achieved, np.float32([goal]), {}))
        rewards += GAMMA ** (len(taken) - 1) * reward
        if terminated:
            break
    last = taken[-1]
    desired = first.observation["desired_goal"] if goal is None else goal
    return {
        "rewards": rewards,
        "discounts": 0.0 if terminated else GAMMA ** len(taken),
        "terminated": terminated,
        "truncated": last.truncated,
        "steps": len(taken),
        "observation": first.observation["observation"],
        "achieved": first.observation["achieved_goal"],
        "desired": np.float32(np.reshape(desired, (1,))),
        "next_observation": last.next_observation["observation"],
        "next_achieved": last.next_observation["achieved_goal"],
        "next_desired": np.float32(np.reshape(desired, (1,))),
        "previous_actions": first.previous_action,
        "next_previous_actions": last.action,
    }


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_envs=st.integers(1, 3),
    n_step=st.sampled_from([1, 1, 2, 4]),
    strategy=st.sampled_from(GOAL_STRATEGIES),
    terminates=st.sampled_from([None, None, compute_terminated]),
    one_by_one=st.booleans(),
    keeps_infos=st.booleans(),
    stacked=st.booleans(),
    padding=st.sampled_from(["reset", "zero", "other"]),
    length=st.integers(12, 40),
    longest=st.integers(1, 12),
    fillers=st.booleans(),
    losses=st.sampled_from([0.0, 0.0, 0.2]),
    restored=st.booleans(),
    chunks=st.lists(
        st.tuples(st.integers(1, 12), st.sampled_from([False, False, False, True])),
        min_size=1,
        max_size=8,
    ),
)
def test_agrees_with_a_slow_hindsight(
    seed,
    num_envs,
    n_step,
    strategy,
    terminates,
    one_by_one,
    keeps_infos,
    stacked,
    padding,
    length,
    longest,
    fillers,
    losses,
    restored,
    chunks,
):
    rng = np.random.default_rng(seed)
    observers = [observer(rng, env, padding) for env in range(num_envs)]
    world = World(rng, num_envs, observers, (1, longest), fillers, losses)
    adapt = one_at_a_time if one_by_one else (lambda function: function)
    arguments = {
        "num_envs": num_envs,
        "n_step": n_step,
        "gamma": GAMMA,
        "frame_stack": {"observation": FRAMES} if stacked else None,
        "goal_selection_strategy": strategy,
        "compute_reward": compute_reward,
        "compute_terminated": None if terminates is None else adapt(terminates),
        "previous_inputs": ["previous_actions"],
        "extras_example": EXTRAS,
        "keep_infos": keeps_infos,
    }

    def make():
        buffer = HindsightReplayBuffer(length * num_envs, SPACE, ACTIONS, **arguments)
        # The rewards of this world are drawn at random.
        buffer._is_checked = True
        return buffer

    buffer = make()
    for steps, cut in chunks:
        buffer.add(world.collect(steps))
        if cut:
            buffer.cut()
            world.reset()
        if len(buffer):
            buffer.sample(3, rng=rng)
    margin = FRAMES - 1 if stacked else 0
    padding_rows = margin if padding == "other" else 0
    possible, expected = {}, {}
    for history in world.history:
        steps = surviving_steps(history, length, margin, padding_rows)
        alive = {step.action for step in steps}
        for episode in episodes_of(history, alive):
            for index, step in enumerate(episode):
                found = goals_of(episode, index, strategy)
                possible[step.action] = {
                    float(step.observation["desired_goal"][0]),
                    *found,
                }
                for goal in (None, *found):
                    key = (step.action, goal)
                    expected[key] = transition(
                        episode, index, goal, n_step, terminates, keeps_infos
                    )
    assert len(buffer) == len(possible)
    if not possible:
        return
    if restored:
        state, arrays = buffer.get_state(), buffer.get_arrays()
        # Into one that has looked at other episodes.
        buffer, other = make(), np.random.default_rng(1)
        observers = [observer(other, env, padding) for env in range(num_envs)]
        buffer.add(World(other, num_envs, observers).collect(9))
        buffer.sample(9, rng=other)
        buffer.set_state(state, arrays)
    batch = buffer.sample(1000, rng=rng)
    received = {name: batch[name] for name in batch if "observations" not in name}
    for prefix in ("", "next_"):
        observations = batch[f"{prefix}observations"]
        received[f"{prefix}observation"] = observations["observation"]
        received[f"{prefix}achieved"] = observations["achieved_goal"]
        received[f"{prefix}desired"] = observations["desired_goal"]
    seen, keys = {}, []
    for action, goal in zip(batch["actions"], received["desired"][:, 0], strict=True):
        seen.setdefault(int(action), set()).add(float(goal))
        keys.append((int(action), float(goal) if goal > 0 else None))
    samples = [expected[key] for key in keys]
    for name in samples[0]:
        wanted = np.array([sample[name] for sample in samples])
        np.testing.assert_allclose(
            received[name],
            wanted.reshape(received[name].shape),
            rtol=1e-4,
            atol=1e-4,
            err_msg=name,
        )
    for action, found in seen.items():
        assert found <= possible[action]
    if len(possible) <= 10:
        # Nothing that could be the goal is left out.
        assert seen == possible


def walk(length, num_envs=1, desired=9.0):
    """One running episode per environment: what is achieved counts up from zero."""
    numbers = np.arange(length + 1, dtype=np.float32)[:, None, None]
    numbers = np.broadcast_to(numbers, (length + 1, num_envs, 1))
    observations = {
        "observation": numbers,
        "achieved_goal": numbers,
        "desired_goal": np.full_like(numbers, desired),
    }
    no = np.zeros((length, num_envs), bool)
    starts = no.copy()
    starts[0] = True
    return Rollout(
        observations={name: leaf[:-1] for name, leaf in observations.items()},
        actions=np.zeros(no.shape, np.int64),
        rewards=reached(numbers[1:], np.float32([desired]), {}),
        terminated=no,
        truncated=no,
        valid=~no,
        episode_starts=starts,
        previous_actions=np.zeros(no.shape, np.int64),
        previous_rewards=np.zeros(no.shape, np.float32),
        next_inputs={
            "observations": {name: leaf[-1] for name, leaf in observations.items()}
        },
    )


def reached(achieved, desired, infos):
    return np.float32(np.abs(achieved - desired)[..., 0] < 0.5) - 1.0


WALK = spaces.Dict(dict.fromkeys(goals.KEYS, NUMBER))


def walked(length=6, **arguments):
    arguments = {"compute_reward": reached, **arguments}
    buffer = HindsightReplayBuffer(50, WALK, spaces.Discrete(2), **arguments)
    buffer.add(walk(length))
    return buffer


def test_one_step_by_hand():
    batch = walked().sample(4000, rng=np.random.default_rng(0))
    start = batch["observations"]["achieved_goal"][:, 0]
    goal = batch["observations"]["desired_goal"][:, 0]
    relabelled = goal != 9.0
    assert abs(relabelled.mean() - 0.8) < 0.03  # Four for each with its own.
    np.testing.assert_array_equal(
        goal, batch["next_observations"]["desired_goal"][:, 0]
    )
    # Of the six steps, each of the later ones as often as the others.
    assert set(goal[relabelled & (start == 3)]) == {4.0, 5.0, 6.0}
    assert abs(np.mean(goal[relabelled & (start == 3)] == 4.0) - 1 / 3) < 0.08
    np.testing.assert_array_equal(batch["rewards"], np.where(goal == start + 1, 0, -1))
    np.testing.assert_allclose(batch["discounts"], 0.99)
    assert not batch["terminated"].any()
    # Nothing of what is stored has changed.
    assert set(walked(n_sampled_goal=0).sample(99)["rewards"]) == {-1.0}


def test_n_steps_by_hand():
    """Three steps for a goal in two: the second one reaches it, and may end it."""

    def is_there(achieved, desired, infos):
        return reached(achieved, desired, infos) == 0.0

    for terminates in (None, is_there):
        buffer = walked(n_step=3, gamma=0.5, compute_terminated=terminates)
        batch = buffer.sample(2000, rng=np.random.default_rng(0))
        start = batch["observations"]["achieved_goal"][:, 0]
        goal = batch["observations"]["desired_goal"][:, 0]
        in_two = np.flatnonzero((start == 1) & (goal == 3))[0]
        found = [batch[name][in_two] for name in ("rewards", "discounts", "steps")]
        following = batch["next_observations"]["achieved_goal"][in_two, 0]
        if terminates is None:
            # -1 - 0 / 2 - 1 / 4, then the value of where three steps led.
            assert (*found, following) == (-1.25, 0.125, 3, 4.0)
        else:
            assert (*found, following) == (-1.0, 0.0, 2, 3.0)
        assert batch["terminated"][in_two] == (terminates is not None)


def test_rewards_are_scaled_before_they_are_summed():
    buffer = walked(n_step=2, gamma=0.5, n_sampled_goal=1e9)
    batch = buffer.sample(500, scale_rewards=lambda rewards: 10.0 * rewards)
    start = batch["observations"]["achieved_goal"][:, 0]
    ahead = batch["observations"]["desired_goal"][:, 0] - start
    expected = np.where(ahead == 1, -5.0, np.where(ahead == 2, -10.0, -15.0))
    # Of the last step, only one is left.
    expected[start == 5] = 0.0
    np.testing.assert_allclose(batch["rewards"], expected)


@pytest.mark.parametrize("strategy", GOAL_STRATEGIES)
def test_an_episode_longer_than_the_ring(strategy):
    """What is left of it counts: no goal is read from rows that were overwritten."""
    buffer = HindsightReplayBuffer(
        10,
        WALK,
        spaces.Discrete(2),
        goal_selection_strategy=strategy,
        compute_reward=reached,
    )
    for _ in range(2):
        buffer.add(walk(25, desired=99.0))
        goal = buffer.sample(999)["observations"]["desired_goal"][:, 0]
        left = {"final": {25.0}}.get(strategy, set(np.arange(17.0, 26.0)))
        assert set(goal) == {99.0, *left}


def test_answers_that_are_no_numbers_for_each_step():
    def shaped(value, shape=()):
        return lambda achieved, desired, infos: np.full(
            np.shape(achieved) + shape, value
        )

    wrong = {
        "compute_reward": [
            (shaped(0.0), r"answer of shape \(\d+, 1\).*axis=-1"),
            (lambda *_: "text", "numbers of shape"),
            (lambda *_: np.nan, "returned nan"),
            (
                lambda a, *_: np.full(len(a), np.inf) if a.ndim > 1 else 0,
                "returned inf",
            ),
        ],
        "compute_terminated": [(lambda *_: 0.5, "bools of shape")],
    }
    for name, cases in wrong.items():
        for function, match in cases:
            with pytest.raises(ValueError, match=match):
                walked(**{name: function}).sample(50)
    with pytest.raises(ValueError, match="has no compute_reward"):
        walked(compute_reward=None).sample(50)


@pytest.mark.parametrize(
    "arguments, match",
    [
        (
            {"compute_reward": lambda a, d, i: reached(a, d, i) + 1},
            "compute_reward says",
        ),
        (
            {"compute_terminated": lambda a, d, i: reached(a, d, i) == -1},
            "compute_terminated says",
        ),
    ],
)
def test_answers_that_are_not_those_of_the_environment(arguments, match):
    buffer = walked(**arguments)
    with pytest.warns(UserWarning, match=match):
        buffer.sample(50)
    buffer.sample(50)  # Once is enough.
    buffer.check_again()
    with pytest.warns(UserWarning, match=match):
        buffer.sample(50)


@pytest.mark.parametrize("count", [8, 2000])
def test_an_answer_that_is_wrong_where_a_goal_is_reached_alone(count):
    """One step of 200: in few of the first samples, or in none of them."""
    buffer = HindsightReplayBuffer(
        250,
        WALK,
        spaces.Discrete(2),
        compute_reward=lambda a, d, i: 2.0 * reached(a, d, i) + 1.0,
    )
    buffer.add(walk(200, desired=60.0))
    rng = np.random.default_rng(0)
    with pytest.warns(UserWarning, match="1.0 where it was 0.0"):
        for _ in range(400):
            buffer.sample(count, rng=rng)


def test_a_function_of_one_step_that_branches():
    def near(achieved, desired, infos):
        distance = np.linalg.norm(achieved - desired, axis=-1)
        return 0.0 if distance < 0.5 else -1.0

    rewards = walked(compute_reward=near).sample(50, rng=np.random.default_rng(0))
    expected = walked().sample(50, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(rewards["rewards"], expected["rewards"])


@pytest.mark.parametrize(
    "space, match",
    [
        (NUMBER, "dicts with the keys"),
        (spaces.Dict({"observation": NUMBER, "achieved_goal": NUMBER}), "dicts with"),
        (spaces.Dict({**WALK.spaces, "desired_goal": spaces.Box(0, 1, (2,))}), "same"),
        (spaces.Dict({**WALK.spaces, "desired_goal": spaces.Discrete(2)}), "same"),
        (
            spaces.Dict(
                {
                    "observation": NUMBER,
                    "achieved_goal": spaces.Discrete(4),
                    "desired_goal": spaces.Discrete(3),
                }
            ),
            "same",
        ),
        (
            spaces.Dict(
                {**WALK.spaces, "desired_goal": spaces.Tuple([NUMBER, NUMBER])}
            ),
            "same",
        ),
    ],
)
def test_spaces_without_goals_are_refused(space, match):
    with pytest.raises(ValueError, match=match):
        HindsightReplayBuffer(50, space, spaces.Discrete(2))


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"goal_selection_strategy": "random"}, "future.*final.*episode"),
        ({"n_sampled_goal": -1}, "n_sampled_goal"),
        ({"previous_inputs": ["previous_rewards"]}, "that of another goal"),
    ],
)
def test_arguments_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        walked(**arguments)


def test_goals_may_be_nested():
    nested = spaces.Dict({"place": NUMBER, "hands": spaces.MultiBinary(2)})
    space = spaces.Dict(dict.fromkeys(goals.KEYS, nested))
    rng = np.random.default_rng(0)

    def observe(is_first):
        place, hands = rng.normal(size=1), rng.integers(2, size=2)
        leaf = {"place": np.float32(place), "hands": np.int8(hands)}
        return dict.fromkeys(goals.KEYS, leaf)

    def distance(achieved, desired, infos):
        return np.abs(achieved["place"] - desired["place"])[..., 0]

    buffer = HindsightReplayBuffer(
        50, space, ACTIONS, compute_reward=distance, n_sampled_goal=1e9
    )
    buffer.add(World(rng, 1, [observe]).collect(30))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "compute_reward")
        batch = buffer.sample(2000, rng=rng)
    achieved = batch["next_observations"]["achieved_goal"]
    desired = batch["observations"]["desired_goal"]
    np.testing.assert_allclose(
        batch["rewards"], distance(achieved, desired, {}), rtol=1e-5
    )
    pairs = zip(achieved["place"][:, 0], achieved["hands"].tolist(), strict=True)
    hands_at = dict(pairs)
    for place, hands in zip(
        desired["place"][:, 0], desired["hands"].tolist(), strict=True
    ):
        assert hands_at[place] == hands  # Of the same observation.


class Walk(gymnasium.Wrapper):
    """A wrapper, below which methods must be found too."""


def make_walk():
    return Walk(testing.BitFlippingEnv(4))


class Batched(gymnasium.vector.VectorEnv):
    """A batched simulation, which has the methods itself."""

    metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}

    def __init__(self):
        env = testing.BitFlippingEnv(4)
        self.num_envs = 2
        self.single_observation_space = env.observation_space
        self.single_action_space = env.action_space
        self.compute_reward = env.compute_reward


@pytest.mark.parametrize(
    "make",
    [
        lambda: envs.make_envs(make_walk, 2),
        lambda: envs.make_envs(gymnasium.vector.SyncVectorEnv([make_walk] * 2)),
        lambda: envs.make_envs(gymnasium.vector.AsyncVectorEnv([make_walk] * 2)),
        lambda: envs.make_envs(Batched()),
    ],
    ids=["serial", "sync", "async", "batched"],
)
def test_whom_environments_ask(make):
    made = make()
    bits = np.array([[0, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]], np.int8)
    steps = bits, np.ones((3, 4), np.int8), {}
    try:
        rewards = made.goal_function("compute_reward")(*steps)
        np.testing.assert_array_equal(rewards, [-1.0, 0.0, -1.0])
        ends = made.goal_function("compute_terminated")
        if isinstance(getattr(made, "env", None), Batched):
            assert ends is None
        else:
            np.testing.assert_array_equal(ends(*steps), [False, True, False])
        assert made.goal_function("compute_truncated") is None
    finally:
        getattr(made, "env", made).close()
