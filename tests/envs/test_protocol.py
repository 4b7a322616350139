"""Environments that break gymnasium's protocol: refused, with one clear error."""

import re

import gymnasium
import numpy as np
import pytest
from envs import bad_environments as bad
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

import kerasrl.spaces
from kerasrl import testing
from kerasrl.envs import EnvProtocolError, check_env, make_envs
from kerasrl.rollouts import Collector


class Actor:
    """Always chooses zeros."""

    initial_state = None

    def __init__(self, space):
        self.space = kerasrl.spaces.emitted(space)

    def draw(self, generators, steps):
        return []

    def __call__(self, inputs, noise):
        size = len(inputs["previous_rewards"])
        return {"actions": kerasrl.spaces.zeros(self.space, size), "state": ()}


def collect(env, num_envs=None, steps=10):
    """A rollout of an environment, in which every observation is recorded."""
    with make_envs(env, num_envs) as envs:
        generators = [np.random.default_rng(0) for _ in range(envs.num_envs)]
        actor = Actor(envs.action_space)
        collector = Collector(envs, actor, steps, generators, all_finals=True)
        collector.reset(list(range(envs.num_envs)))
        return collector.collect()


@pytest.mark.parametrize("fault", bad.FAULTS, ids=lambda fault: fault.name)
def test_every_fault_is_refused_by_name(fault):
    """One of two, the only one, and all of three: nothing is broadcast or guessed."""
    for call in fault.calls:
        for num_envs, index in ((2, bad.BAD), (1, None), (3, None)):
            which = index or 0
            with pytest.raises(Exception) as caught:
                collect(bad.make(fault, call, index), num_envs)
            error = caught.value
            if fault.part == "raise":
                assert type(error) is type(fault.value)
                assert error.args == fault.value.args
                assert f"environment {which} of {num_envs}" in error.__notes__[-1]
            else:
                assert type(error) is EnvProtocolError
                assert f"Environment {which} of BadEnv" in str(error)
                assert re.search(fault.message, str(error))
                assert re.search(r"\breset\b|\bstep \d", str(error))


def test_sound_environments_pass():
    for space in bad.OBSERVATION_SPACES:
        rollout = collect(lambda space=space: bad.BadEnv(space), 2)
        assert rollout.truncated.sum() == 4
        assert check_env(bad.BadEnv(space)) == []


def test_faults_beyond_one_value():
    with pytest.raises(EnvProtocolError, match=r"Environment 1.*sys.exit\(0\)"):
        collect(bad.make_class(bad.Exits), 2)
    for env_class in (bad.ChangesSpace, bad.ChangesActionSpace):
        with pytest.raises(EnvProtocolError, match="Environment 1.*changed its `"):
            collect(bad.make_class(env_class), 2)
    with pytest.raises(bad.OwnError, match="cannot be made"):
        collect(bad.make_class(bad.RaisesInInit), 2)
    with pytest.warns(UserWarning, match="Environment 1.*cannot be closed"):
        collect(bad.make_class(bad.RaisesInClose), 2)


def test_check_env_says_the_same():
    for fault in bad.FAULTS:
        # gymnasium's checker comes later, but it would find some of them as well.
        if fault.part in ("observation", "reward", "terminated", "info", "result"):
            env = bad.BadEnv(fault.space, fault, fault.calls[0])
            with pytest.raises(EnvProtocolError, match="Environment 0 of BadEnv, in"):
                check_env(env)


def test_reset_of_the_old_gym():
    class Old(testing.CountingEnv):
        def reset(self):
            return self._observation()

    with pytest.raises(EnvProtocolError, match="'seed'.*seed=None, options=None"):
        collect(Old)


def test_bounds_of_floats_are_only_warned_of():
    class Beyond(bad.BadEnv):
        def _observation(self):
            return np.full(4, 99.0, np.float32)

    with pytest.warns(UserWarning, match=r"out of bounds.*99.0.*-10.0 to 10.0"):
        rollout = collect(Beyond, 2)
    assert (rollout.observations == 99.0).all()

    class LaterBeyond(bad.BadEnv):
        """Sound for gymnasium's checker, which looks at the first step only."""

        def _observation(self):
            return np.full(4, 99.0 if self._step > 1 else 0.0, np.float32)

    assert "beyond its bounds" in check_env(LaterBeyond)[0]


def test_a_rare_fault_is_found_in_the_rollout():
    """Bounds of integers are looked at always, long after the first steps."""

    class Late(bad.BadEnv):
        steps = 0

        def _observation(self):
            self.steps += 1
            return 7 if self.steps > 600 else 1

    with pytest.raises(EnvProtocolError, match=r"bounds 0 to 2.*Received: 7"):
        collect(lambda: Late("choice"), 2, steps=700)


def test_one_element_arrays_among_floats():
    class Rewards(bad.BadEnv):
        def step(self, action):
            observation, _, *rest = super().step(action)
            return (observation, self.reward, *rest)

    envs = make_envs(Rewards, num_envs=4)
    for env, reward in zip(
        envs.envs, (1.0, np.ones(1) * 2, [[3]], np.bool_(True)), strict=True
    ):
        env.reward = reward
    envs.reset()
    assert envs.step(np.zeros(4, int)).rewards.tolist() == [1, 2, 3, 1]


def test_flags_that_are_numbers():
    class Flags(bad.BadEnv):
        def step(self, action):
            observation, reward, _, _, info = super().step(action)
            return observation, reward, *self.flags, info

    envs = make_envs(Flags, num_envs=4)
    for env, flags in zip(
        envs.envs,
        ((0, False), (np.bool_(True), 0), (np.int8(0), np.ones(1, int)), (1, 1)),
        strict=True,
    ):
        env.flags = flags
    envs.reset()
    step = envs.step(np.zeros(4, int))
    assert step.terminated.tolist() == [False, True, False, True]
    assert step.truncated.tolist() == [False, False, True, True]


# Any space, any value ------------------------------------------------------------

INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "int64"]


@st.composite
def leaves(draw):
    """A leaf space of observations."""
    kind = draw(st.sampled_from(["float", "integer", "choice", "choices", "flags"]))
    if kind == "flags":
        return spaces.MultiBinary(draw(st.integers(1, 3)))
    if kind == "choice":
        return spaces.Discrete(draw(st.integers(1, 5)), start=draw(st.integers(-3, 3)))
    if kind == "choices":
        sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
        start = draw(st.lists(st.integers(-2, 2), min_size=len(sizes)))[: len(sizes)]
        return spaces.MultiDiscrete(sizes, start=start)
    shape = tuple(draw(st.lists(st.integers(1, 3), max_size=3)))
    if kind == "float":
        return spaces.Box(-np.inf, np.inf, shape, draw(st.sampled_from(["f4", "f8"])))
    dtype = draw(st.sampled_from(INTEGERS))
    limits = np.iinfo(dtype)
    # gymnasium cannot sample from all of int64.
    number = st.integers(max(limits.min, -(2**40)), min(limits.max, 2**40))
    low, high = sorted((draw(number), draw(number)))
    return spaces.Box(low, high, shape, dtype)


@st.composite
def values(draw, space):
    """An array that may be an observation of a leaf, or nearly."""
    space.seed(draw(st.integers(0, 99)))
    array = np.asarray(space.sample())
    change = draw(
        st.sampled_from(["none", "dtype", "number", "fraction", "shape", "list"])
    )
    if change == "dtype":
        dtype = draw(st.sampled_from([*INTEGERS, "f4", "f8", "c8", "O", "U8", "?"]))
        with np.errstate(all="ignore"):
            array = array.astype(dtype)
    elif change == "number":
        array = array.astype("f8" if array.dtype.kind == "f" else "i8")
        array.flat[draw(st.integers(0, array.size - 1))] = draw(
            st.sampled_from([-129, -1, 0, 1, 2, 7, 255, 256, 300, 70_000])
        )
    elif change == "fraction":
        array = array + draw(st.sampled_from([0.0, 0.5, 0.7]))
    elif change == "shape":
        array = draw(
            st.sampled_from(
                [array[None], array[..., None], array.ravel()[:1], array.ravel()]
            )
        )
    elif change == "list":
        return array.tolist()
    return array


def fits(space, value):
    """The definition: the space's shape, and numbers that it has."""
    try:
        array = np.asarray(value)
    except ValueError:
        return False
    if array.shape != space.shape or array.dtype.kind not in "fiub":
        return False
    if isinstance(space, spaces.Box) and space.dtype.kind == "f":
        return True
    numbers = [number.item() for number in array.ravel()]
    if any(number != int(number) for number in numbers):
        return False
    exact = np.array([int(number) for number in numbers], object).reshape(space.shape)
    if isinstance(space, spaces.Box):
        low, high = space.low.astype(object), space.high.astype(object)
    elif isinstance(space, spaces.MultiBinary):
        low, high = 0, 1
    elif isinstance(space, spaces.Discrete):
        low, high = int(space.start), int(space.start + space.n - 1)
    else:
        low = space.start.astype(object)
        high = low + space.nvec.astype(object) - 1
    return bool(np.all((exact >= low) & (exact <= high)))


class Says(gymnasium.Env):
    """Returns a given observation at one call, and samples otherwise."""

    def __init__(self, space, value, call, name):
        self.observation_space, self.action_space = space, spaces.Discrete(2)
        self.value, self.when = value, call
        self.name = name
        self.calls = 0

    def _observation(self):
        self.calls += 1
        self.observation_space.seed(1)
        observation = self.observation_space.sample()
        if self.calls == self.when:
            if self.name is None:
                return self.value
            observation[self.name] = self.value
        return observation

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observation(), {}

    def step(self, action):
        return self._observation(), 0.0, self.calls % 4 == 3, False, {}


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_observations_are_kept_exactly_or_refused(data):
    """At reset, in a step, at the end and after it, alone or in a Dict."""
    leaf = data.draw(leaves())
    value = data.draw(values(leaf))
    call = data.draw(st.integers(1, 4))
    name = data.draw(st.sampled_from([None, "b"]))
    space = leaf
    if name is not None:
        space = spaces.Dict({"c": spaces.Discrete(2), "b": leaf})
    # All of them, so that nothing is found only because rows differ.
    num_envs = data.draw(st.integers(1, 2))

    def make():
        return Says(space, value, call, name)

    if not fits(leaf, value):
        with pytest.raises(EnvProtocolError, match="Environment 0 of Says") as caught:
            collect(make, num_envs, steps=6)
        assert f"observation_space{'' if name is None else '[' + repr(name) + ']'}" in (
            str(caught.value)
        )
        return
    rollout = collect(make, num_envs, steps=6)
    # Calls: the reset, two steps, and the reset after the end; the third is final.
    if call == 3:
        kept = rollout.final["observations"]
        row = 0
    else:
        kept = rollout.observations
        row = ({1: 0, 2: 1, 4: 2}[call], 0)
    kept = kept if name is None else kept[name]
    expected = np.asarray(value).astype(kept.dtype)
    np.testing.assert_array_equal(kept[row], expected)


# Vector environments -------------------------------------------------------------


class BadVectorEnv(VectorEnv):
    """Three environments of two numbers that end after three steps, with a fault.

    Args:
        mode: `AutoresetMode`.
        fault: Dict from parts of what `step` returns to what stands in their place.
        call: `"step"`, `"reset"` or `"final"`.
    """

    num_envs = 3
    single_observation_space = spaces.Box(-9, 9, (2,), np.float32)
    single_action_space = spaces.Discrete(2)

    def __init__(self, mode, fault, call):
        self.metadata = {"autoreset_mode": mode}
        self.mode = mode
        self.fault = fault
        self.call = call
        self.steps = 0

    def _observations(self, size=3):
        return np.zeros((size, 2), np.float32)

    def reset(self, *, seed=None, options=None):
        parts = {"observations": self._observations(), "infos": {}}
        if self.call == "reset" and (options is None or self.steps):
            parts.update({k: v for k, v in self.fault.items() if k in parts})
        return tuple(parts.values())

    def step(self, actions):
        self.steps += 1
        ends = self.steps == 3
        infos = {}
        if ends and self.mode is AutoresetMode.SAME_STEP:
            infos = {"final_obs": self._observations(), "_final_obs": np.ones(3, bool)}
        parts = {
            "observations": self._observations(),
            "rewards": np.ones(3),
            "terminated": np.full(3, ends),
            "truncated": np.zeros(3, bool),
            "infos": infos,
        }
        if self.call == ("final" if ends else "step"):
            final = self.fault.get("final_obs")
            if final is not None:
                infos["final_obs"] = final
            parts.update({k: v for k, v in self.fault.items() if k in parts})
        if "result" in self.fault and self.call == "step":
            return self.fault["result"]
        return tuple(parts.values())


VECTOR_FAULTS = {
    "observation of one": ("observations", np.zeros(2, np.float32)),
    "one row": ("observations", np.zeros((1, 2), np.float32)),
    "one column": ("observations", np.zeros((3, 1), np.float32)),
    "four rows": ("observations", np.zeros((4, 2), np.float32)),
    "text": ("observations", np.full((3, 2), "1")),
    "one reward": ("rewards", 1.0),
    "rewards (B, 1)": ("rewards", np.ones((3, 1))),
    "rewards (1, B)": ("rewards", np.ones((1, 3))),
    "rewards (1,)": ("rewards", np.ones(1)),
    "rewards as text": ("rewards", np.array(["1", "2", "3"])),
    "complex rewards": ("rewards", np.ones(3, complex)),
    "no rewards": ("rewards", [None] * 3),
    "infinite rewards": ("rewards", np.full(3, np.inf)),
    "terminated (B, 1)": ("terminated", np.zeros((3, 1), bool)),
    "one terminated": ("terminated", False),
    "terminated as text": ("terminated", ["False"] * 3),
    "truncated (1, B)": ("truncated", np.zeros((1, 3), bool)),
    "truncated twos": ("truncated", np.full(3, 2)),
    "truncated fractions": ("truncated", np.zeros(3)),
    "infos": ("infos", [{}] * 3),
    "no result": ("result", None),
    "old result": ("result", (np.zeros((3, 2), "f4"), np.ones(3), np.zeros(3), {})),
}


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("name", VECTOR_FAULTS)
def test_vector_environments(name, mode):
    part, value = VECTOR_FAULTS[name]
    calls = ["step", "reset"] if part in ("observations", "infos") else ["step"]
    for call in calls:
        env = BadVectorEnv(mode, {part: value}, call)
        with pytest.raises(EnvProtocolError, match="BadVectorEnv.*(step|reset)"):
            collect(env)
    assert collect(BadVectorEnv(mode, {}, "step")).rewards.sum() > 0


def test_final_observations_of_vector_environments():
    for final in (
        np.zeros((3, 1), np.float32),
        np.zeros(2, np.float32),
        np.array([None] * 3),
        np.array([np.zeros(1), np.zeros(2), np.zeros(2)], object),
    ):
        env = BadVectorEnv(AutoresetMode.SAME_STEP, {"final_obs": final}, "final")
        with pytest.raises(EnvProtocolError, match="Environment 0.*final_obs"):
            collect(env)
