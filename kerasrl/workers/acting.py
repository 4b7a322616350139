"""Acting inside a worker: the learner's program on some of its environments."""

import numpy as np
import optree

from kerasrl.actors.noise import draw_noise


def draw_partial_noise(specs, leader, generators, steps):
    """Draws noise for some environments, as `draw_noise` would for all.

    Args:
        specs, generators, steps: As for `kerasrl.actors.noise.draw_noise`.
        leader: The generator of environment 0, if that is not among these and there is
            noise that all share, else `None`. It draws what it draws there.
    """
    if leader is None:
        return draw_noise(specs, generators, steps)
    drawn = draw_noise(specs, [leader, *generators], steps)
    return [
        array if spec.shared else array[:, 1:]
        for spec, array in zip(specs, drawn, strict=True)
    ]


class HalfActor:
    """Acts for some of the environments, with the noise that is theirs among all.

    Args:
        actor: As for `kerasrl.rollouts.Collector`, with `noise_specs`.
        leader: As for `draw_partial_noise`.
    """

    def __init__(self, actor, leader):
        self.initial_state = actor.initial_state
        self._actor = actor
        self._leader = leader

    def draw(self, generators, steps):
        """See `kerasrl.actors.Actor.draw`."""
        specs = self._actor.noise_specs
        return draw_partial_noise(specs, self._leader, generators, steps)

    def __call__(self, inputs, noise):
        return self._actor(inputs, noise)


class PartialActor:
    """Acts for some of B environments with exactly the numbers that all B would get.

    Matrix products of other sizes are summed in another order, and differ in the last
    bits. So the program always runs on B rows, of which only those of this worker's
    environments count. It takes little longer: most of the time of small networks goes
    into calling NumPy.

    Args:
        program: `kerasrl.actors.program.Program`.
        initial_state: As for `kerasrl.actors.Actor`.
        start, stop: Integers, the environments of this worker among all.
        num_envs: Integer, B.
        leader: The generator of environment 0, from which noise is drawn that all
            environments share, or `None` if there is no such noise.
    """

    def __init__(self, program, initial_state, start, stop, num_envs, leader):
        self.program = program
        self.initial_state = initial_state
        self._leader = leader if start else None
        self._own = slice(start, stop)
        self._num_envs = num_envs
        self._is_whole = stop - start == num_envs
        self._padded = None

    def draw(self, generators, steps):
        """See `kerasrl.actors.Actor.draw`; the noise has rows for all B."""
        specs = self.program.noise_specs
        drawn = draw_partial_noise(specs, self._leader, generators, steps)
        if self._is_whole:
            return drawn
        noise = []
        for spec, own in zip(specs, drawn, strict=True):
            array = own
            if not spec.shared:
                array = np.zeros((steps, self._num_envs, *own.shape[2:]), own.dtype)
                array[:, self._own] = own
            noise.append(array)
        return noise

    def __call__(self, inputs, noise):
        if self._is_whole:
            return self.program.run(inputs, noise)
        leaves, structure = optree.tree_flatten(inputs)
        if self._padded is None:
            # The other rows hold something real, on which no operation warns.
            self._padded = [
                np.repeat(leaf[:1], self._num_envs, axis=0) for leaf in leaves
            ]
        for padded, leaf in zip(self._padded, leaves, strict=True):
            padded[self._own] = leaf
        outputs = self.program.run(structure.unflatten(self._padded), noise)
        return optree.tree_map(lambda leaf: leaf[self._own], outputs)
