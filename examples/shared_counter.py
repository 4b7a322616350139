"""A curriculum on a counter that all environments share, in whatever process.

The pole of this CartPole begins long, which is easy, and shrinks with every episode
that reaches 150 steps, in any of the environments. Nobody tells them: each looks at the
shared number when it begins an episode. The learner reads it too, and logs it.

Run: python examples/shared_counter.py --steps 60000 --workers 2
"""

import argparse

import gymnasium

import kerasrl

LONG, SHORT, SUCCESSES = 2.0, 0.5, 200


class ShrinkingCartPole(gymnasium.Wrapper):
    """CartPole whose pole is the shorter, the more often it was balanced.

    Args:
        env: A CartPole.
    """

    def __init__(self, env):
        super().__init__(env)
        self.successes = kerasrl.SharedValue("successes")
        self.steps = 0

    def reset(self, **kwargs):
        """Begins an episode with the length of the present phase."""
        self.steps = 0
        share = min(1.0, self.successes.get() / SUCCESSES)
        cart_pole = self.env.unwrapped
        cart_pole.length = LONG + share * (SHORT - LONG)
        cart_pole.polemass_length = cart_pole.masspole * cart_pole.length
        return self.env.reset(**kwargs)

    def step(self, action):
        """Steps, and counts the episode once it is long enough."""
        self.steps += 1
        if self.steps == 150:
            self.successes.add(1)
        return self.env.step(action)


def make_env():
    """Makes one environment."""
    return ShrinkingCartPole(gymnasium.make("CartPole-v1"))


class LogSuccesses(kerasrl.callbacks.Callback):
    """Logs the shared number at the end of every epoch."""

    def on_epoch_end(self, epoch, logs=None):
        """Adds it to the logs, and so to the history."""
        logs["successes"] = kerasrl.SharedValue("successes").get()


def main():
    """Trains and prints the successes and the mean return of some epochs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60_000)
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args()

    kerasrl.SharedValue("successes").set(0)
    agent = kerasrl.PPO(seed=0)
    history = agent.fit(
        make_env,
        steps=args.steps,
        num_workers=args.workers,
        callbacks=[LogSuccesses()],
        verbose=0,
    ).history
    pairs = zip(history["successes"], history["episode_return_mean"], strict=True)
    for epoch, (successes, mean) in enumerate(pairs):
        if epoch % 5 == 0:
            print(f"epoch {epoch}  successes {successes:4.0f}  mean return {mean:6.1f}")


if __name__ == "__main__":
    main()
