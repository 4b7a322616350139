"""Make the task harder as the agent gets better.

A long pole falls slowly and is easy to balance. The pole of this CartPole starts long
and shrinks by one phase whenever the mean return passes a threshold; the callback
calls `set_phase` on every environment.

Run: python examples/curriculum.py --steps 60000
"""

import argparse

import gymnasium

import kerasrl

POLE_HALF_LENGTHS = (2.0, 1.0, 0.5)


class PhasedCartPole(gymnasium.Wrapper):
    """CartPole whose pole shrinks with the phase."""

    def __init__(self, env):
        super().__init__(env)
        self.set_phase(0)

    def set_phase(self, phase):
        """Sets the length of the pole."""
        cart_pole = self.env.unwrapped
        cart_pole.length = POLE_HALF_LENGTHS[phase]
        cart_pole.polemass_length = cart_pole.masspole * cart_pole.length


def make_env():
    """Makes one environment."""
    return PhasedCartPole(gymnasium.make("CartPole-v1"))


def main():
    """Trains with the curriculum and prints the phase and return of every epoch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60_000)
    parser.add_argument("--threshold", type=float, default=150.0)
    args = parser.parse_args()

    def next_phase(agent, logs):
        if logs["episode_return_mean"] < args.threshold:
            return None
        return min(curriculum.phase + 1, len(POLE_HALF_LENGTHS) - 1)

    curriculum = kerasrl.callbacks.Curriculum(next_phase, initial=0)
    agent = kerasrl.PPO(seed=0)
    history = agent.fit(
        make_env, steps=args.steps, callbacks=[curriculum], verbose=0
    ).history
    for phase, episode_return in zip(
        history["curriculum_phase"], history["episode_return_mean"], strict=True
    ):
        print(f"phase {phase:.0f}  mean return {episode_return:6.1f}")


if __name__ == "__main__":
    main()
