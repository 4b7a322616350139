"""Episodes of populations: the same however many environments play them."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasrl.actors.population import PopulationProgram
from kerasrl.actors.program import Program
from kerasrl.envs import make_envs
from kerasrl.envs.protocol import EnvProtocolError
from kerasrl.rollouts.playing import PopulationPlayer
from kerasrl.rollouts.population import Population, merge_moments

SOURCE = """
def program(inputs, weights, noise):
    x0 = inputs["observations"]
    w0, w1, = weights
    t1 = x0.dot(w0)
    add(t1, w1, t1)
    t2 = t1.argmax(-1)
    return {"actions": t2, "state": {"seen": inputs["state"]["seen"] + x0[:, :1]}}
"""


class Drawn(gymnasium.Env):
    """Ends after a number of steps that its seed says, in both ways in turn."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Discrete(2)
    played = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(1, 9))
        self.is_late = bool(self.np_random.integers(2))
        return self._observe(), {"left": self.left}

    def step(self, action):
        Drawn.played += 1
        self.left -= 1
        reward = float(self.np_random.normal()) + 10.0 * float(action)
        ends = self.left == 0
        return (
            self._observe(),
            reward,
            ends and not self.is_late,
            ends and self.is_late,
            {},
        )

    def _observe(self):
        return (1e4 + self.np_random.normal(size=3)).astype(np.float32)


def program():
    weights = [np.zeros((3, 2), np.float32), np.zeros(2, np.float32)]
    return Program(SOURCE, {}, weights)


def make_player(num_envs, env=Drawn, **options):
    is_vector = not isinstance(num_envs, int)
    envs = make_envs(num_envs) if is_vector else make_envs(env, num_envs)
    actor = PopulationProgram(program(), [0, 1], envs.num_envs, True)
    state = {"seen": np.zeros(1, np.float32)}
    return PopulationPlayer(envs, actor, state, **options)


def make_population(**arguments):
    center = np.linspace(-1, 1, 8, dtype=np.float32)
    given = {"key": 5, "center": center, "scale": 0.1, "num_pairs": 3, "episodes": 2}
    return Population(**{**given, "center_episodes": 3, **arguments})


def alone(population, task, limit=None):
    """An episode as its definition says."""
    weights = population.weights(task)
    matrix, bias = weights[:6].reshape(3, 2), weights[6:]
    env = Drawn()
    observation, _ = env.reset(seed=population.seed(task))
    total, length, seen = 0.0, 0, []
    while True:
        seen.append(observation)
        action = int((observation[None].dot(matrix) + bias).argmax())
        observation, reward, terminated, truncated, _ = env.step(action)
        total, length = total + np.float32(reward), length + 1
        if terminated or truncated or length == limit:
            return total, length, terminated, np.array(seen, np.float64)


@pytest.mark.parametrize("limit", [None, 4])
@pytest.mark.parametrize("num_envs", [1, 2, 7, 40])
def test_each_task_is_the_episode_that_its_number_says(num_envs, limit):
    population = make_population()
    tasks = [14, 3, 0, 7, 1, 9, 10, 11, 12, 13, 8, 2]
    player = make_player(num_envs, max_episode_steps=limit, counts=True)
    for _ in range(2):  # Nothing is left over from the first.
        results = player.play(population, tasks)
        for row, task in enumerate(tasks):
            total, length, terminated, seen = alone(population, task, limit)
            assert results["returns"][row] == pytest.approx(total, abs=1e-4)
            assert results["lengths"][row] == length
            assert results["terminated"][row] == terminated
            np.testing.assert_allclose(results["means"][0][row], seen.mean(axis=0))
            squares = np.square(seen - seen.mean(axis=0)).sum(axis=0)
            np.testing.assert_allclose(
                results["squares"][0][row], squares, rtol=1e-6, atol=1e-6
            )


def test_no_step_is_taken_that_does_not_count():
    Drawn.played = 0
    results = make_player(7).play(make_population(), range(15))
    assert Drawn.played == results["lengths"].sum()


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 14), min_size=1, unique=True), st.integers(1, 5))
def test_results_do_not_depend_on_what_else_is_played(tasks, num_envs):
    population = make_population()
    every = make_player(3, counts=True).play(population, range(15))
    some = make_player(num_envs, counts=True).play(population, tasks)
    for name in ("returns", "lengths", "terminated"):
        np.testing.assert_array_equal(some[name], every[name][tasks])
    np.testing.assert_array_equal(some["means"][0], every["means"][0][tasks])
    np.testing.assert_array_equal(some["squares"][0], every["squares"][0][tasks])


def test_pairs_mirror_each_other_on_the_same_seeds():
    population = make_population()
    assert population.num_tasks == 15 and population.num_perturbed == 12
    seeds = [population.seed(task) for task in range(15)]
    for pair in range(3):
        up, _, down, _ = range(4 * pair, 4 * pair + 4)
        sum_of_both = population.weights(up) + population.weights(down)
        np.testing.assert_allclose(sum_of_both, 2 * population.center, atol=1e-6)
        difference = population.weights(up) - population.center
        direction = population.direction(pair)
        np.testing.assert_allclose(difference, 0.1 * direction, atol=1e-6)
        assert seeds[up : up + 2] == seeds[down : down + 2]
    assert len(set(seeds)) == 2 * 3 + 3
    for task in (12, 14):
        np.testing.assert_array_equal(population.weights(task), population.center)
    other = make_population(key=6)
    assert not np.isin(other.direction(0), population.direction(0)).any()
    big = make_population(center=np.zeros(100_000, np.float32))
    assert big.direction(1).mean() == pytest.approx(0.0, abs=0.02)
    assert big.direction(1).std() == pytest.approx(1.0, abs=0.02)
    correlation = np.corrcoef(big.direction(1), big.direction(2))[0, 1]
    assert abs(correlation) < 0.02


def test_a_listener_hears_of_the_episodes_that_take_place():
    heard = []

    class Listener:
        def on_episode_begin(self, episode):
            assert episode.length == 0 and "left" in episode.info
            heard.append(episode)

        def on_episode_step(self, episode):
            assert episode.length > 0

        def on_episode_end(self, episode):
            episode.custom_metrics["twice"] = 2 * episode.length

    results = make_player(40, listener=Listener()).play(make_population(), range(15))
    assert len(heard) == 15
    lengths = sorted(episode.length for episode in heard)
    assert lengths == sorted(results["lengths"])
    for length, custom in zip(
        results["lengths"], results["custom_metrics"], strict=True
    ):
        assert custom == {"twice": 2 * length}


@pytest.mark.parametrize("where", ["reward", "observation"])
def test_numbers_that_are_none_are_refused(where):
    class Broken(Drawn):
        def step(self, action):
            observation, reward, *rest = super().step(action)
            if where == "reward":
                return observation, float("nan"), *rest
            return np.full_like(observation, np.nan), reward, *rest

    with pytest.raises(EnvProtocolError, match=f"{where}.* with NaN"):
        make_player(2, Broken).play(make_population(), range(15))


@pytest.mark.parametrize("limit", [None, 4])
@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_a_vector_environment_plays_the_same(mode, limit):
    """Its environments are reset together, and seeded each by itself."""
    autoreset = gymnasium.vector.AutoresetMode(mode)
    vector = gymnasium.vector.SyncVectorEnv([Drawn] * 4, autoreset_mode=autoreset)
    population, options = (
        make_population(),
        {"counts": True, "max_episode_steps": limit},
    )
    together = make_player(vector, **options).play(population, range(15))
    apart = make_player(4, **options).play(population, range(15))
    for name in ("returns", "lengths", "terminated"):
        np.testing.assert_array_equal(together[name], apart[name])
    np.testing.assert_array_equal(together["means"][0], apart["means"][0])
    vector.close()


class Rows(gymnasium.vector.VectorEnv):
    """Environments of which each row is reset by itself, with a seed of its own."""

    metadata = {
        "autoreset_mode": gymnasium.vector.AutoresetMode.DISABLED,
        "row_seeds": True,
    }

    def __init__(self, num_envs, env=Drawn):
        self.envs = [env() for _ in range(num_envs)]
        self.num_envs = num_envs
        self.single_observation_space = env.observation_space
        self.single_action_space = env.action_space
        self.rows = np.zeros((num_envs, 3), np.float32)

    def reset(self, *, seed=None, options=None):
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        for row in np.flatnonzero(mask):
            self.rows[row], _ = self.envs[row].reset(seed=seed and seed[row])
        return self.rows, {}

    def step(self, actions):
        results = [e.step(a) for e, a in zip(self.envs, actions, strict=True)]
        self.rows[:], rewards, terminated, truncated, _ = zip(*results, strict=True)
        # Who has ended and was not reset says so for good, and is worth nothing.
        over = np.array([env.left <= 0 for env in self.envs])
        late = np.array([env.is_late for env in self.envs])
        gone = np.array([env.left < 0 for env in self.envs])
        rewards = np.where(gone, np.nan, rewards)
        self.rows[gone] = np.nan
        return self.rows, rewards, over & ~late, over & late, {}


@pytest.mark.parametrize("limit", [None, 4])
@pytest.mark.parametrize("num_envs", [1, 4, 40])
def test_rows_that_take_seeds_play_as_single_environments(num_envs, limit):
    """None waits for another; those without an episode may be stepped, and say NaN."""
    population, options = (
        make_population(),
        {"counts": True, "max_episode_steps": limit},
    )
    apart = make_player(4, **options).play(population, range(15))
    player = make_player(Rows(num_envs), **options)
    for _ in range(2):
        Drawn.played = 0
        results = player.play(population, range(15))
        for name in ("returns", "lengths", "terminated"):
            np.testing.assert_array_equal(results[name], apart[name])
        for name in ("means", "squares"):
            np.testing.assert_array_equal(results[name][0], apart[name][0])
        # All rows are stepped at once, until the last episode has ended.
        longest = max(
            results["lengths"].max(), -(-results["lengths"].sum() // num_envs)
        )
        assert longest <= Drawn.played // num_envs <= results["lengths"].sum()
    # Between populations rows are what they are.
    env = player.envs.env
    np.testing.assert_array_equal(
        env.reset(seed=[3] * num_envs)[0][0], Drawn().reset(seed=3)[0]
    )


def test_a_listener_hears_of_rows():
    heard = []

    class Listener:
        def on_episode_begin(self, episode):
            heard.append(episode)

        def on_episode_step(self, episode):
            assert np.isfinite(episode.observation).all()

        def on_episode_end(self, episode):
            episode.custom_metrics["length"] = episode.length

    player = make_player(Rows(6), listener=Listener())
    results = player.play(make_population(), range(15))
    assert len(heard) == 15
    custom = [each["length"] for each in results["custom_metrics"]]
    np.testing.assert_array_equal(custom, results["lengths"])


MASKED = """
def program(inputs, weights, noise):
    x0 = inputs["observations"]["action_mask"]
    w0, w1, = weights
    t1 = x0.astype(float32)
    t2 = t1.argmax(-1)
    return {"actions": t2, "state": inputs["state"]}
"""


class Choosy(Drawn):
    """One action of three may be taken; after its end all that it tells is NaN."""

    action_space = spaces.Discrete(3)
    observation_space = spaces.Dict(
        {"x": Drawn.observation_space, "action_mask": spaces.MultiBinary(3)}
    )
    ends = 0

    def reset(self, *, seed=None, options=None):
        self.is_seeded = seed is not None
        return super().reset(seed=seed)

    def step(self, action):
        assert action == self.legal, "This action is not legal."
        observation, reward, *rest = super().step(np.int64(0))
        Choosy.ends += any(rest[:2])
        return observation, reward if self.is_seeded else np.inf, *rest

    def _observe(self):
        self.legal = int(self.np_random.integers(3))
        x = super()._observe() if self.is_seeded else np.full(3, np.nan, np.float32)
        return {"x": x, "action_mask": np.eye(3, dtype=np.int8)[self.legal]}


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_who_has_no_episode_acts_legally_and_does_not_count(mode):
    autoreset = gymnasium.vector.AutoresetMode(mode)
    vector = gymnasium.vector.SyncVectorEnv([Choosy] * 8, autoreset_mode=autoreset)
    weights = [np.zeros((3, 2), np.float32), np.zeros(2, np.float32)]
    constants = {"float32": np.dtype(np.float32)}
    results = []
    for envs in (make_envs(vector), make_envs(Choosy, 2)):
        actor = Program(MASKED, constants, weights)
        actor = PopulationProgram(actor, [0, 1], envs.num_envs, False)
        player = PopulationPlayer(envs, actor, (), counts=True)
        Choosy.ends = 0
        results.append(player.play(make_population(), [0, 3, 9, 13, 14]))
    assert Choosy.ends == 5
    for name in ("returns", "lengths", "terminated"):
        np.testing.assert_array_equal(results[0][name], results[1][name])
    for one, other in zip(results[0]["means"], results[1]["means"], strict=True):
        np.testing.assert_array_equal(one, other)
    vector.close()


class ChoosyRows(Rows):
    """Says what may be done, also after ends."""

    def __init__(self, num_envs):
        super().__init__(num_envs, Choosy)
        self.rows = {
            "x": np.zeros((num_envs, 3), np.float32),
            "action_mask": np.zeros((num_envs, 3), np.int8),
        }

    def reset(self, *, seed=None, options=None):
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        for row in np.flatnonzero(mask):
            seen, _ = self.envs[row].reset(seed=seed and seed[row])
            self._write(row, seen)
        return self.rows, {}

    def step(self, actions):
        found = [e.step(a) for e, a in zip(self.envs, actions, strict=True)]
        for row, result in enumerate(found):
            self._write(row, result[0])
        _, rewards, *ends, _ = zip(*found, strict=True)
        return self.rows, np.array(rewards), *map(np.array, ends), {}

    def _write(self, row, seen):
        for key, value in seen.items():
            self.rows[key][row] = value


def test_rows_without_an_episode_act_legally():
    weights = [np.zeros((3, 2), np.float32), np.zeros(2, np.float32)]
    results = []
    for envs in (make_envs(ChoosyRows(4)), make_envs(Choosy, 2)):
        actor = Program(MASKED, {"float32": np.dtype(np.float32)}, weights)
        actor = PopulationProgram(actor, [0, 1], envs.num_envs, False)
        player = PopulationPlayer(envs, actor, ())
        results.append(player.play(make_population(), [0, 3, 9, 13, 14]))
    for name in ("returns", "lengths", "terminated"):
        np.testing.assert_array_equal(results[0][name], results[1][name])


@pytest.mark.parametrize("is_idle", [True, False])
def test_a_bad_number_is_found_where_somebody_plays(is_idle):
    class Broken(Drawn):
        def step(self, action):
            observation, reward, *rest = super().step(action)
            return observation, np.nan if self.number == 3 else reward, *rest

    number = iter(range(4))

    def make():
        env = Broken()
        env.number = next(number)
        return env

    vector = gymnasium.vector.SyncVectorEnv([make] * 4)
    player = make_player(vector)
    if is_idle:
        assert np.isfinite(player.play(make_population(), [0, 1, 2])["returns"]).all()
        return
    with pytest.raises(EnvProtocolError, match="Environment 3 .* a reward with NaN"):
        player.play(make_population(), [0, 1, 2, 3])


def test_between_populations_environments_are_what_they_are():
    """`foreach_env` may do with them what it likes."""

    class Takes(Drawn):
        def reset(self, *, seed=None, options=None):
            self.options = options
            return super().reset(seed=seed)

    player = make_player(2, Takes, max_episode_steps=4)
    (env, _) = player.envs.envs
    for _ in range(2):
        env.reset(seed=3, options={"x": 1})
        assert env.unwrapped.options == {"x": 1}
        _, reward, *_ = env.step(np.int64(1))
        assert reward > 5.0
        player.play(make_population(), [0])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_moments_of_parts_are_those_of_all(counts, seed):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(1e3, 1.0, size=(count, 2, 3)) for count in counts]
    means = np.array([part.mean(axis=0) for part in parts])
    squares = np.array([np.square(p - p.mean(axis=0)).sum(axis=0) for p in parts])
    total, mean, variance = merge_moments(np.array(counts), means, squares)
    whole = np.concatenate(parts)
    assert total == len(whole)
    np.testing.assert_allclose(mean, whole.mean(axis=0))
    np.testing.assert_allclose(variance, whole.var(axis=0), atol=1e-9)
