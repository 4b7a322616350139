"""What ranks played, put together, and statistics learnt from means and variances."""

import gymnasium
import numpy as np
import pytest
from rollouts.test_population import make_player, make_population

import kerasrl
from kerasrl.training import population


class Ranks:
    """The view of rank 0 of ranks whose parts are all there already."""

    def __init__(self, parts):
        self.num_ranks = len(parts)
        self._parts = parts

    def gather(self, array):
        assert array.dtype in (np.float64, np.int64) and array.ndim == 1
        parts = [self._like(array, part) for part in self._parts]
        return [part.astype(array.dtype).reshape(-1) for part in parts]

    def gather_data(self, data):
        return [part["custom_metrics"] for part in self._parts]

    def _like(self, array, part):
        """The array of a rank that is in the place of that of rank 0."""
        first = self._parts[0]
        for name in ("returns", "lengths", "terminated"):
            if np.array_equal(array, first[name].reshape(-1)):
                return part[name]
        for name in ("means", "squares"):
            for k, each in enumerate(first[name]):
                if np.array_equal(array, each.reshape(-1)):
                    return part[name][k]
        raise AssertionError


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_parts_of_ranks_are_put_together(num_ranks):
    played = make_population()
    player = make_player(3, counts=True)
    whole = player.play(played, range(15))
    parts = [
        player.play(played, range(rank, 15, num_ranks)) for rank in range(num_ranks)
    ]
    found = population._gathered(Ranks(parts), parts[0])
    for name in ("returns", "lengths", "terminated"):
        np.testing.assert_array_equal(found[name], whole[name])
        assert found[name].dtype == whole[name].dtype
    np.testing.assert_array_equal(found["means"][0], whole["means"][0])
    np.testing.assert_array_equal(found["squares"][0], whole["squares"][0])
    assert len(found["custom_metrics"]) == 15


def test_statistics_are_learnt_from_mean_and_variance():
    """As from the observations themselves; what is no float is left alone."""
    space = gymnasium.spaces.Dict(
        {
            "number": gymnasium.spaces.Discrete(3),
            "vector": gymnasium.spaces.Box(-9.0, 9.0, (2,), np.float32),
        }
    )
    rng = np.random.default_rng(0)
    batches = [rng.normal(2.0, 0.5, size=(count, 2)) for count in (5, 7)]
    agents = []
    for is_direct in (True, False):
        agent = kerasrl.ES({"hidden_units": (2,), "normalize_observations": True})
        agent.build(space, gymnasium.spaces.Discrete(2))
        for batch in batches:
            if is_direct:
                observations = {
                    "number": np.zeros(len(batch), np.int64),
                    "vector": batch,
                }
                mask = np.ones(len(batch), bool)
                agent.policy.update_normalization(observations, mask)
                continue
            moments = [(np.zeros(()),) * 2, (batch.mean(axis=0), batch.var(axis=0))]
            played = population.PlayedPopulation(
                *(None, None, None, None, 0), (len(batch), moments)
            )
            population.learn_moments(agent, played)
        agents.append(agent)
    direct, indirect = (a.policy.encoder.normalizers[1] for a in agents)
    for name in ("mean", "variance", "count"):
        np.testing.assert_allclose(
            getattr(direct, name).numpy(), getattr(indirect, name).numpy(), rtol=1e-6
        )
