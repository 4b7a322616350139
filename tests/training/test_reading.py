"""Which of what came before policies read, and rewards that mean something else."""

import gymnasium
import keras
import pytest

import kerasrl
from kerasrl import models
from kerasrl.training.reading import previous_inputs_read


@keras.saving.register_keras_serializable("test_reading")
class Reading(models.QFunction):
    """Values that depend on what `reads` says, and only look at all the rest."""

    def __init__(self, reads=(), **kwargs):
        super().__init__(**kwargs)
        self.reads = reads

    def setup(self, observation_space, action_space):
        super().setup(observation_space, action_space)
        self.head = keras.layers.Dense(int(action_space.n))

    def call(self, inputs, state=None, training=False):
        values = self.head(inputs["observations"])
        for name in ("previous_actions", "previous_rewards"):
            if name in inputs:
                seen = keras.ops.cast(inputs[name], "float32")[:, None]
                if name in self.reads:
                    values = values + seen
        return {"q_values": values, "distribution": values}

    def get_config(self):
        return {**super().get_config(), "reads": self.reads}


@pytest.mark.parametrize(
    "reads", [[], ["previous_rewards"], ["previous_actions", "previous_rewards"]]
)
def test_policies_that_read_previous_inputs(reads):
    agent = kerasrl.DQN(Reading(reads), learning_starts=0, batch_size=4, seed=0)
    agent.compile(run_eagerly=True)
    agent.fit("CartPole-v1", steps=32, num_envs=2, verbose=0)
    assert previous_inputs_read(agent.policy) == agent.previous_inputs == reads
    for name in ("previous_actions", "previous_rewards"):
        assert agent.buffer.keeps(name) == (name in reads)


def test_what_is_read_in_training_only():
    class Noisy(Reading):
        def call(self, inputs, state=None, training=False):
            self.reads = ["previous_rewards"] if training else []
            return super().call(inputs)

    agent = kerasrl.DQN(Noisy())
    env = gymnasium.make("CartPole-v1")
    agent.build(env.observation_space, env.action_space)
    assert agent.previous_inputs == ["previous_rewards"]


def test_recurrent_policies_are_not_called_without_their_state():
    """Sequences have the previous inputs in any case."""

    class Counting(Reading):
        def get_initial_state(self, batch_size):
            return keras.ops.zeros((batch_size, 1))

        def call(self, inputs, state=None, training=False):
            outputs = super().call(inputs)
            return {"q_values": outputs["q_values"] + state, "state": state + 1.0}

    agent = kerasrl.R2D2(Counting())
    env = gymnasium.make("CartPole-v1")
    agent.build(env.observation_space, env.action_space)
    assert agent.previous_inputs == []


def test_rewards_that_would_count_as_impossible_actions(tmp_path):
    def make(scale):
        env = gymnasium.make("CartPole-v1")
        return gymnasium.wrappers.TransformReward(env, lambda reward: scale * reward)

    def fit(scale, agent_class=kerasrl.DQN, steps=64, **arguments):
        agent = agent_class(
            {"hidden_units": (4,)}, learning_starts=1000, seed=0, **arguments
        )
        agent.fit(lambda: make(scale), steps, num_envs=2, verbose=0)
        return agent

    with pytest.warns(UserWarning, match="reward of -6e.06. .*gamma=0.99") as caught:
        agent = fit(-6e6)
    # With others, of libraries.
    assert sum("a reward of" in str(each.message) for each in caught) == 1
    agent.save(tmp_path / "agent.kerasrl")
    for harmless in (-4e6, 6e6):
        fit(harmless, steps=8)
    fit(-6e6, steps=8, gamma=0.9)
    fit(-6e6, steps=8, normalize_rewards=True)
    fit(-1e4, steps=8, gamma=1.0)
