"""The collector, checked number by number against environments with known answers."""

import gymnasium
import numpy as np
import optree
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from kerasrl import testing
from kerasrl.envs import make_envs
from kerasrl.rollouts import Collector

LENGTHS = (3, 5, 4, 1)


class RecurrentActor:
    """Counts the steps of each episode in its state and reports all that it saw."""

    def __init__(self, initial=None, stochastic=True):
        self.stochastic = stochastic
        self.initial_state = initial or {
            "count": np.zeros((), np.int64),
            "total": np.zeros(2, np.float32),
        }

    def draw(self, generators, steps):
        if not self.stochastic:
            return []
        return [np.stack([each.random(steps) for each in generators], axis=1)]

    def __call__(self, inputs, noise):
        observations, state = inputs["observations"], inputs["state"]
        if self.stochastic:
            actions = (noise[0] < 0.5).astype(np.int32)
        else:
            actions = (observations.sum(axis=1) + state["count"]).astype(int) % 2
        return {
            "actions": actions,
            "state": {
                "count": state["count"] + 1,
                "total": state["total"] + observations,
            },
            "seen_count": state["count"],
            "seen_action": inputs["previous_actions"],
            "seen_reward": inputs["previous_rewards"],
            "nested": {"observations": (observations,)},
        }


class Policy:
    """A feed-forward actor made of one function of the inputs."""

    initial_state = None

    def __init__(self, function):
        self.function = function

    def draw(self, generators, steps):
        return []

    def __call__(self, inputs, noise):
        return {"actions": self.function(inputs["observations"]), "state": ()}


def zeros(observations):
    return np.zeros(len(optree.tree_leaves(observations)[0]), np.int64)


def generators(number):
    return [np.random.default_rng(seed) for seed in range(number)]


def counting_envs(ends="alternate"):
    return make_envs(
        lambda context: testing.CountingEnv(LENGTHS[context.vector_index], ends),
        num_envs=len(LENGTHS),
    )


def counting_truth(length, step):
    """Everything about environment step `step` of a CountingEnv, from its definition.

    The number of the episode, of the step in it, and how the step ends.
    """
    episode, position = divmod(step, length)
    ended = position == length - 1
    return episode, position, ended and episode % 2 == 0, ended and episode % 2 == 1


@pytest.mark.parametrize("rollout_length", [1, 2, 7, 12])
@pytest.mark.parametrize("initial", [0, 100])
def test_every_field_of_a_counting_environment(rollout_length, initial):
    actor = RecurrentActor(
        {"count": np.int64(initial), "total": np.full(2, initial, np.float32)}
    )
    envs = counting_envs()
    collector = Collector(
        envs, actor, rollout_length, generators(4), info_keys=["action", "step"]
    )
    collector.reset([5, 6, 7, 8])
    taken = [[] for _ in LENGTHS]  # All actions so far, of each environment.
    for number in range(60 // rollout_length):
        rollout = collector.collect()
        assert rollout.num_steps == rollout_length * 4
        assert rollout.valid.all()
        # The environments confirm which action they were given at each step.
        np.testing.assert_array_equal(rollout.infos["action"], rollout.actions)
        finals = {}
        for env, length in enumerate(LENGTHS):
            for time in range(rollout_length):
                step = number * rollout_length + time
                taken[env].append(rollout.actions[time, env])
                episode, position, terminated, truncated = counting_truth(length, step)
                where = (time, env)
                np.testing.assert_array_equal(
                    rollout.observations[where], [episode, position]
                )
                assert rollout.rewards[where] == position + 1
                assert rollout.infos["step"][where] == position + 1
                assert rollout.terminated[where] == terminated
                assert rollout.truncated[where] == truncated
                assert rollout.episode_starts[where] == (position == 0)
                action = taken[env][step - 1] if position else 0
                for field in (
                    rollout.previous_actions,
                    rollout.extras["seen_action"],
                ):
                    assert field[where] == action
                for field in (
                    rollout.previous_rewards,
                    rollout.extras["seen_reward"],
                ):
                    assert field[where] == position
                assert rollout.extras["seen_count"][where] == initial + position
                if truncated:
                    finals[where] = episode, action
            # What the policy sees next.
            following = (number + 1) * rollout_length
            episode, position, _, _ = counting_truth(length, following)
            upcoming = rollout.next_inputs
            np.testing.assert_array_equal(
                upcoming["observations"][env], [episode, position]
            )
            assert upcoming["episode_starts"][env] == (position == 0)
            assert upcoming["previous_rewards"][env] == position
            action = taken[env][following - 1] if position else 0
            assert upcoming["previous_actions"][env] == action
            # The state before row 0 is not yet reset for an episode that starts there.
            first = number * rollout_length
            position = counting_truth(length, first)[1]
            position = length if position == 0 and first else position
            assert rollout.state["count"][env] == initial + position
        check_finals(rollout, finals, initial)
        np.testing.assert_array_equal(
            rollout.extras["nested"]["observations"][0], rollout.observations
        )
    records = collector.drain_episodes()
    assert collector.drain_episodes() == []
    steps = 60 // rollout_length * rollout_length
    assert collector.env_steps == 4 * steps
    for env, length in enumerate(LENGTHS):
        mine = [record for record in records if record.env_index == env]
        assert len(mine) == steps // length
        for index, record in enumerate(mine):
            assert record.length == length
            assert record.episode_return == length * (length + 1) / 2
            assert record.terminated == (index % 2 == 0)
            assert record.env_steps == 4 * length * (index + 1)
    ends = [record.env_steps for record in records]
    assert ends == sorted(ends)


def check_finals(rollout, expected, initial):
    if not expected:
        assert rollout.final is None
        return
    final = rollout.final
    where = list(zip(final["time"].tolist(), final["env"].tolist(), strict=True))
    assert where == sorted(where)
    assert set(where) == set(expected)
    for row, (time, env) in enumerate(where):
        episode, _ = expected[time, env]
        length = LENGTHS[env]
        np.testing.assert_array_equal(final["observations"][row], [episode, length])
        # Action and reward of that very step, not those seen at it.
        assert final["previous_actions"][row] == rollout.actions[time, env]
        assert final["previous_rewards"][row] == length
        assert final["state"]["count"][row] == initial + length
        np.testing.assert_array_equal(
            final["state"]["total"][row],
            [initial + episode * length, initial + length * (length - 1) / 2],
        )


def test_dtypes_and_shapes():
    collector = Collector(counting_envs(), RecurrentActor(), 12, generators(4))
    collector.reset()
    rollout = collector.collect()
    assert rollout.rewards.dtype == rollout.previous_rewards.dtype == np.float32
    assert rollout.observations.dtype == np.float32
    for name in ("terminated", "truncated", "valid", "episode_starts"):
        assert getattr(rollout, name).dtype == bool
        assert getattr(rollout, name).shape == (12, 4)
    final, upcoming = rollout.final, rollout.next_inputs
    assert final["previous_actions"].dtype == rollout.actions.dtype
    assert rollout.previous_actions.dtype == rollout.actions.dtype
    assert upcoming["previous_actions"].dtype == rollout.actions.dtype
    assert final["previous_rewards"].dtype == np.float32
    assert final["observations"].dtype == np.float32
    assert upcoming["previous_rewards"].dtype == np.float32
    assert upcoming["episode_starts"].dtype == bool


def test_rollouts_are_new_arrays_each_time():
    collector = Collector(counting_envs(), RecurrentActor(), 5, generators(4))
    collector.reset([1, 2, 3, 4])
    first = collector.collect()
    kept = optree.tree_map(np.array, first)
    for leaf in optree.tree_leaves(first):
        if leaf.dtype != object:
            leaf[...] = 1  # Spoiling what was handed out must not reach the next one.
    second = collector.collect()
    other = Collector(counting_envs(), RecurrentActor(), 5, generators(4))
    other.reset([1, 2, 3, 4])
    other.collect()
    expected = other.collect()
    np.testing.assert_array_equal(second.observations, expected.observations)
    np.testing.assert_array_equal(second.previous_actions, expected.previous_actions)
    np.testing.assert_array_equal(second.previous_rewards, expected.previous_rewards)
    np.testing.assert_array_equal(second.episode_starts, expected.episode_starts)
    np.testing.assert_array_equal(second.state["count"], expected.state["count"])
    assert not np.array_equal(kept.observations, second.observations)


def test_nested_observations_and_actions():
    def act(observations):
        first = observations["choices"][0]
        return {
            "choice": first % 2,
            "moves": (
                np.full((len(first), 2), 3.0, np.float32),
                np.ones((len(first), 3), np.int64),
            ),
        }

    envs = make_envs(testing.NestedEnv, num_envs=2, env_config={"nested_actions": True})
    collector = Collector(envs, Policy(act), 6, generators(2), info_keys=["action"])
    collector.reset([0, 1])
    rollout = collector.collect()
    steps = np.arange(6)[:, None].repeat(2, 1)
    observations = rollout.observations
    assert observations["image"].dtype == np.uint8
    assert observations["image"].shape == (6, 2, 8, 8, 3)
    np.testing.assert_array_equal(observations["image"][..., 0, 0, 0], steps)
    assert observations["vector"].dtype == np.float32
    np.testing.assert_array_equal(observations["vector"][..., 1], -steps)
    np.testing.assert_array_equal(observations["choices"][0], steps % 7)
    np.testing.assert_array_equal(observations["choices"][1][..., 1], steps % 3)
    np.testing.assert_array_equal(rollout.rewards, np.ones((6, 2)))
    # As emitted in the rollout, clipped in the environment.
    assert (rollout.actions["moves"][0] == 3.0).all()
    given = rollout.infos["action"][0, 0]
    np.testing.assert_array_equal(given["moves"][0], [1.0, 1.0])
    assert rollout.previous_actions["moves"][0].shape == (6, 2, 2)
    assert (rollout.previous_actions["moves"][0][0] == 0.0).all()
    assert (rollout.previous_actions["moves"][0][1:] == 3.0).all()
    final = rollout.final
    np.testing.assert_array_equal(final["time"], [5, 5])
    np.testing.assert_array_equal(
        final["observations"]["image"], np.full((2, 8, 8, 3), 6)
    )
    assert final["observations"]["choices"][0].tolist() == [6, 6]
    assert final["previous_actions"]["moves"][1].shape == (2, 3)
    assert (rollout.next_inputs["previous_actions"]["moves"][1] == 0).all()


def vector_envs(mode, number=3):
    return make_envs(
        SyncVectorEnv(
            [lambda: testing.RandomEndsEnv(0.15, 0.15) for _ in range(number)],
            autoreset_mode=mode,
        )
    )


def collect_valid(envs, rollouts=12, length=9):
    """The valid transitions of each environment, one after the other."""
    actor = RecurrentActor(stochastic=False)
    collector = Collector(envs, actor, length, generators(envs.num_envs))
    collector.reset([11, 12, 13])
    result = [{"rows": [], "final": []} for _ in range(envs.num_envs)]
    steps = 0
    for _ in range(rollouts):
        rollout = collector.collect()
        steps += rollout.num_steps
        assert steps == collector.env_steps
        final = rollout.final
        where = [] if final is None else zip(final["time"], final["env"], strict=True)
        lookup = {pair: row for row, pair in enumerate(where)}
        # Where both flags hold, termination wins: nothing to bootstrap from.
        bootstrapped = rollout.truncated & ~rollout.terminated & rollout.valid
        assert sorted(lookup) == [tuple(pair) for pair in np.argwhere(bootstrapped)]
        for env in range(envs.num_envs):
            for time in range(length):
                if not rollout.valid[time, env]:
                    assert (time, env) not in lookup
                    assert rollout.truncated[time, env]
                    assert not rollout.terminated[time, env]
                    assert rollout.rewards[time, env] == 0.0
                    continue
                row = [
                    rollout.observations[time, env].tolist(),
                    rollout.actions[time, env].item(),
                    rollout.rewards[time, env].item(),
                    rollout.terminated[time, env].item(),
                    rollout.truncated[time, env].item(),
                    rollout.episode_starts[time, env].item(),
                    rollout.previous_actions[time, env].item(),
                    rollout.previous_rewards[time, env].item(),
                    rollout.extras["seen_count"][time, env].item(),
                    rollout.extras["seen_action"][time, env].item(),
                    rollout.extras["seen_reward"][time, env].item(),
                ]
                result[env]["rows"].append(row)
                if (time, env) in lookup:
                    k = lookup[time, env]
                    result[env]["final"].append(
                        [
                            len(result[env]["rows"]),
                            final["observations"][k].tolist(),
                            final["previous_actions"][k].item(),
                            final["previous_rewards"][k].item(),
                            final["state"]["count"][k].item(),
                            final["state"]["total"][k].tolist(),
                        ]
                    )
    return result, collector.drain_episodes()


def test_autoreset_modes_give_the_same_valid_transitions():
    serial = make_envs(lambda: testing.RandomEndsEnv(0.15, 0.15), num_envs=3)
    reference, reference_records = collect_valid(serial)
    assert sum(len(each["final"]) for each in reference) > 10
    both = [row for each in reference for row in each["rows"] if row[3] and row[4]]
    assert both, "the probe should end both ways at once now and then"
    for mode in AutoresetMode:
        result, records = collect_valid(vector_envs(mode))
        if mode is not AutoresetMode.NEXT_STEP:
            assert result == reference
            assert records == reference_records
            continue
        for mine, expected in zip(result, reference, strict=True):
            count = len(mine["rows"])
            assert 60 < count < len(expected["rows"])
            assert mine["rows"] == expected["rows"][:count]
            within = [each for each in expected["final"] if each[0] <= count]
            assert mine["final"] == within
        for env in range(3):
            lengths = [r.length for r in records if r.env_index == env]
            expected = [r.length for r in reference_records if r.env_index == env]
            assert lengths == expected[: len(lengths)]
            returns = [r.episode_return for r in records if r.env_index == env]
            assert returns == lengths


def test_same_randomness_per_environment():
    """An environment's actions depend on its own generator and seed, on no other."""

    def actions(number, generator_list, seeds):
        envs = make_envs("CartPole-v1", num_envs=number)
        collector = Collector(envs, RecurrentCartPole(), 50, generator_list)
        collector.reset(seeds)
        return collector.collect()

    pair = actions(2, generators(2), [3, 4])
    alone = actions(1, [np.random.default_rng(1)], [4])
    np.testing.assert_array_equal(pair.actions[:, 1], alone.actions[:, 0])
    np.testing.assert_array_equal(pair.observations[:, 1], alone.observations[:, 0])
    # Step t gets row t of the noise.
    expected = np.random.default_rng(1).random(50) < 0.5
    np.testing.assert_array_equal(pair.actions[:, 1], expected)
    again = actions(2, generators(2), [3, 4])
    np.testing.assert_array_equal(pair.observations, again.observations)
    other = actions(2, generators(2), [3, 5])
    assert not np.array_equal(pair.observations[0, 1], other.observations[0, 1])


class RecurrentCartPole(RecurrentActor):
    def __init__(self):
        super().__init__({"count": np.int64(0), "total": np.zeros(4, np.float32)})


class Listener:
    def __init__(self):
        self.events = []

    def on_episode_begin(self, episode):
        assert episode.user_data == {} and episode.custom_metrics == {}
        assert episode.length == 0 and episode.action is None
        episode.user_data["rewards"] = []
        self.note("begin", episode)

    def on_episode_step(self, episode):
        episode.user_data["rewards"].append(episode.reward)
        self.note("step", episode)

    def on_episode_end(self, episode):
        assert sum(episode.user_data["rewards"]) == episode.episode_return
        episode.custom_metrics["largest"] = max(episode.user_data["rewards"])
        self.note("end", episode)

    def note(self, kind, episode):
        self.events.append(
            (
                kind,
                episode.env_index,
                episode.observation.tolist(),
                episode.length,
                episode.reward,
                episode.terminated,
                episode.truncated,
                episode.info.get("step", episode.info.get("episode_number")),
            )
        )


def expected_events(env, length, steps):
    events = [("begin", env, [0.0, 0.0], 0, 0.0, False, False, 0)]
    for step in range(steps):
        episode, position, terminated, truncated = counting_truth(length, step)
        count = position + 1
        event = (env, [episode, count], count, count, terminated, truncated, count)
        events.append(("step", *event))
        if terminated or truncated:
            events.append(("end", *event))
            first = (env, [episode + 1.0, 0.0], 0, 0.0, False, False, episode + 1)
            events.append(("begin", *first))
    return events


@pytest.mark.parametrize("mode", ["serial", *AutoresetMode])
def test_listener_hears_every_episode(mode):
    if mode == "serial":
        envs = counting_envs()
    else:
        envs = SyncVectorEnv(
            [lambda n=n: testing.CountingEnv(n) for n in LENGTHS], autoreset_mode=mode
        )
    listener = Listener()
    envs = make_envs(envs)
    collector = Collector(envs, RecurrentActor(), 7, generators(4), listener=listener)
    collector.reset([0, 0, 0, 0])
    assert listener.events == []
    for _ in range(3):
        collector.collect()
    for env, length in enumerate(LENGTHS):
        events = [event for event in listener.events if event[1] == env]
        expected = expected_events(env, length, 21)
        if mode is AutoresetMode.NEXT_STEP:
            assert len(events) > 20 / length
            expected = expected[: len(events)]
        assert events == expected
    records = collector.drain_episodes()
    assert records
    for record in records:
        assert record.custom_metrics == {"largest": LENGTHS[record.env_index]}


def test_listener_may_come_late():
    collector = Collector(counting_envs(), RecurrentActor(), 2, generators(4))
    collector.reset()
    collector.collect()
    collector.drain_episodes()

    class Late(Listener):
        def on_episode_begin(self, episode):
            episode.user_data["rewards"] = [episode.episode_return]

    collector.listener = Late()
    collector.collect()
    by_env = {}
    for record in collector.drain_episodes():
        by_env.setdefault(record.env_index, record)
    assert by_env[0].episode_return == 6.0 and by_env[0].length == 3
    assert by_env[0].custom_metrics


def test_info_keys():
    class Informing(testing.CountingEnv):
        def step(self, action):
            *rest, info = super().step(action)
            info["vector"] = np.full(2, self._step)
            if self._step % 2:
                info["sometimes"] = self._step
            info["text"] = "odd" if self._step % 2 else "even"
            return (*rest, info)

    collector = Collector(
        make_envs(lambda: Informing(3), num_envs=2),
        RecurrentActor(),
        3,
        generators(2),
        info_keys=("sometimes", "vector", "text", "never"),
    )
    collector.reset()
    infos = collector.collect().infos
    np.testing.assert_array_equal(infos["sometimes"][:, 0], [1.0, np.nan, 3.0])
    np.testing.assert_array_equal(infos["vector"][:, 1], [[1, 1], [2, 2], [3, 3]])
    assert infos["text"][:, 0].tolist() == ["odd", "even", "odd"]
    assert np.isnan(infos["never"]).all()


def test_infos_are_those_of_their_step():
    class Rewriting(testing.CountingEnv):
        info = {"inside": np.zeros(2)}

        def step(self, action):
            *rest, _ = super().step(action)
            self.info["step"] = self._step
            self.info["inside"][:] = self._step
            return (*rest, self.info)

    collector = Collector(
        make_envs(lambda: Rewriting(3), num_envs=1),
        RecurrentActor(),
        4,
        generators(1),
        info_keys=("step", "inside"),
    )
    collector.reset()
    infos = collector.collect().infos
    assert infos["step"][:, 0].tolist() == [1, 2, 3, 1]
    assert infos["inside"][:, 0, 1].tolist() == [1, 2, 3, 1]


@pytest.mark.parametrize("where", ["reward", "observation", "final"])
def test_nan_is_refused_with_its_place(where):
    class Broken(testing.CountingEnv):
        def step(self, action):
            observation, reward, *rest = super().step(action)
            if self.length == 5 and self._step == (5 if where == "final" else 2):
                if where == "reward":
                    reward = np.nan
                else:
                    observation[1] = np.inf
            return (observation, reward, *rest)

    envs = make_envs(
        lambda context: Broken(4 + context.vector_index, "truncated"), num_envs=2
    )
    collector = Collector(envs, RecurrentActor(), 6, generators(2))
    collector.reset()
    match = "final observation" if where == "final" else "Environment 1 of Broken.*"
    with pytest.raises(ValueError, match=match):
        collector.collect()


def test_wrong_use_is_explained():
    envs = counting_envs()
    with pytest.raises(ValueError, match="rollout_length"):
        Collector(envs, RecurrentActor(), 0, generators(4))
    with pytest.raises(ValueError, match="3 generators for 4"):
        Collector(envs, RecurrentActor(), 5, generators(3))
    with pytest.raises(ValueError, match="info_keys"):
        Collector(envs, RecurrentActor(), 5, generators(4), info_keys="step")
    with pytest.raises(RuntimeError, match="reset"):
        Collector(envs, RecurrentActor(), 5, generators(4)).collect()

    def collect(function):
        collector = Collector(envs, Policy(function), 5, generators(4))
        collector.reset()
        return collector.collect()

    with pytest.raises(ValueError, match="actor's 'actions' do not fit"):
        collect(lambda observations: np.zeros((4, 1), int))
    with pytest.raises(ValueError, match="out of the range"):
        collect(lambda observations: np.full(4, 2))
    with pytest.raises(ValueError, match="does not fit the action space"):
        collect(lambda observations: np.zeros(4))

    class Forgetful(RecurrentActor):
        def __init__(self):
            super().__init__()
            self.initial_state = None

        def __call__(self, inputs, noise):
            return {"actions": zeros(inputs["observations"]), "state": np.zeros(4)}

    collector = Collector(envs, Forgetful(), 5, generators(4))
    collector.reset()
    with pytest.raises(ValueError, match="initial_state"):
        collector.collect()


def test_single_array_state():
    class Counter(Policy):
        initial_state = np.zeros(1, np.float32)

        def __call__(self, inputs, noise):
            actions = self.function(inputs["observations"])
            return {"actions": actions, "state": inputs["state"] + 1}

    collector = Collector(counting_envs(), Counter(zeros), 4, generators(4))
    collector.reset()
    collector.collect()
    rollout = collector.collect()
    np.testing.assert_array_equal(rollout.state[:, 0], [1, 4, 4, 1])


def test_box_actions_are_recorded_before_clipping():
    class Line(gymnasium.Env):
        observation_space = spaces.Box(-1.0, 1.0, (1,), np.float64)
        action_space = spaces.Box(-1.0, 1.0, (1,), np.float64)

        def reset(self, *, seed=None, options=None):
            return np.zeros(1), {}

        def step(self, action):
            info = {"action": action, "dtype": action.dtype}
            return np.zeros(1), float(action[0]), False, False, info

    collector = Collector(
        make_envs(Line, num_envs=2),
        Policy(lambda observations: np.full((2, 1), -2.5, np.float32)),
        3,
        generators(2),
        info_keys=["action", "dtype"],
    )
    collector.reset()
    rollout = collector.collect()
    assert (rollout.actions == -2.5).all() and rollout.actions.dtype == np.float32
    assert (rollout.previous_actions[1:] == -2.5).all()
    assert (rollout.infos["action"] == -1.0).all()
    assert rollout.infos["dtype"][0, 0] == np.float64
    assert (rollout.rewards == -1.0).all()
