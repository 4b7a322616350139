"""Several agents: cooperative games, self-play, PettingZoo's simple_spread.

    python benchmarks/multi_agent.py [rock-paper-scissors] [two-step] [matrix]
        [tic-tac-toe] [spread] [spread-separate] [--seeds 3] [--steps N]

Each line is one run: seed, seconds, and what a deterministic evaluation gave. Gates:

- `two-step`: VDN returns 7, which is the most that a sum of values can say; QMIX 8.
- `matrix`: in the climbing and penalty games, both settle on less than is best (11 and
  10), as theory has it; in the other two they find it. These are negative controls.
- `tic-tac-toe`: one PPO learns both sides, of a third of the games against itself, its
  past, and legal random moves each. Against random moves, as X at least 0.95 won; as O
  0.80 won and at most 0.05 lost; perfect play is drawn.
- `rock-paper-scissors`: a rule that beats the other's last move wins against one that
  always plays the same, and loses to PPO with memory: 8 of 10 rounds and more.
- `spread`: three agents with one PPO on simple_spread_v3 (extra `mpe`), mean return of
  an agent: -16 after 200,000 steps of agents, -13 after 600,000; `spread-separate`: a
  PPO each, -18 after 600,000. Random actions give -26, nearest landmarks -16.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

import kerasrl
from kerasrl.multi_agent import (
    MATRICES,
    MultiAgent,
    Opponents,
    RandomPolicy,
    SelfPlay,
    perfect_move,
)

RESULTS = Path(__file__).parent / "results" / "multi_agent.json"
SPREAD = "pettingzoo:parallel:mpe2.simple_spread_v3"


class Perfect(kerasrl.ScriptedPolicy):
    """Plays tic-tac-toe without a mistake."""

    def compute_actions(self, observations, state):
        """Returns a best move for each board."""
        boards = observations["observation"]
        return np.array([perfect_move({"observation": x}) for x in boards]), state, {}


def against_all(agent, episode):
    """Itself, its past, or random moves, on either side."""
    if not episode.policies:
        others = ("main", "past", "random")
        other = others[episode.rng.integers(3)]
        sides = ["main", other]
        episode.user_data["sides"] = sides[:: 1 if episode.rng.random() < 0.5 else -1]
    return episode.user_data["sides"][len(episode.policies)]


def team(name, seed):
    """A small team that explores throughout."""
    agent = getattr(kerasrl, name)(
        exploration=1.0,
        sequence_length=4,
        period=4,
        learning_starts=200,
        train_every=16,
        target_update_interval=400,
        buffer_size=20_000,
        seed=seed,
    )
    agent.compile(kerasrl.optimizers.Adam(1e-3))
    return agent


def two_step(seed, steps):
    """Yields what VDN and QMIX return in the two-step game."""
    for name in ("VDN", "QMIX"):
        agent = team(name, seed)
        agent.fit("two_step", steps=steps or 16_000, verbose=0)
        result = agent.evaluate("two_step", 8, seed=0, verbose=0)
        yield {"algorithm": name, "return": result["return_mean"]}


def matrix(seed, steps):
    """Yields what they return in games of one step."""
    for payoffs in MATRICES:
        config = {"payoffs": payoffs}
        for name in ("VDN", "QMIX"):
            agent = team(name, seed)
            agent.fit("matrix_game", steps or 8_000, env_config=config, verbose=0)
            result = agent.evaluate("matrix_game", 8, env_config=config, verbose=0)
            best = float(np.max(MATRICES[payoffs]))
            yield {
                "game": payoffs,
                "algorithm": name,
                "return": result["return_mean"],
                "best": best,
            }


def tic_tac_toe(seed, steps):
    """Yields how one PPO plays after self-play."""
    main = kerasrl.PPO(
        policy={"hidden_units": (128, 128)},
        rollout_length=32,
        num_epochs=4,
        minibatch_size=1024,
        entropy_coef=lambda progress: 0.05 * (1 - progress),
        gamma=1.0,
        gae_lambda=0.9,
        seed=seed,
    )
    policies = {
        "main": main,
        "past": Opponents("main"),
        "random": RandomPolicy(),
        "perfect": Perfect(),
    }
    agent = MultiAgent(policies, against_all, seed=seed)
    agent.fit(
        "tic_tac_toe",
        steps=steps or 1_000_000,
        num_envs=64,
        callbacks=[SelfPlay("past", every=20)],
        verbose=0,
    )
    for side, other in (("x", "o"), ("o", "x")):
        for opponent in ("random", "perfect"):
            result = agent.evaluate(
                "tic_tac_toe",
                1000 if opponent == "random" else 100,
                seed=0,
                verbose=0,
                mapping={side: "main", other: opponent},
            )
            won, drawn = result["win_rate_main"], result["draw_rate_main"]
            yield {
                "side": side,
                "against": opponent,
                "won": won,
                "drawn": drawn,
                "lost": result[f"win_rate_{opponent}"],
            }


def spread(seed, steps, shared=True):
    """Yields the mean return of an agent after thirds of training."""

    def make(number):
        return kerasrl.PPO(
            policy={"normalize_observations": True},
            rollout_length=100,
            num_epochs=15,
            minibatch_size=600 if shared else 200,
            gamma=0.95,
            gae_lambda=0.9,
            clip_ratio=0.1,
            entropy_coef=0.01,
            normalize_rewards=True,
            seed=10 * seed + number,
        )

    policies = {"main": make(0)}
    if not shared:
        policies = {f"agent_{number}": make(number) for number in range(3)}
    agent = MultiAgent(policies, seed=seed)
    for _ in range(3):
        history = agent.fit(SPREAD, (steps or 200_000) // 3, num_envs=8, verbose=0)
        result = agent.evaluate(SPREAD, 200, seed=0, verbose=0)
        yield {
            "agent_steps": agent.agent_steps,
            "return": result["return_mean"] / 3,
            "agent_steps_per_second": 3 * history.history["steps_per_second"][-1],
        }


def rock_paper_scissors(seed, steps):
    """Yields what a policy with memory returns against a rule that beats the last move.

    That rule takes 9 or 10 of 10 rounds from one that always plays the same; who knows
    its own last move takes as many from the rule.
    """

    class Same(kerasrl.ScriptedPolicy):
        def get_initial_state(self, batch_size):
            return np.full(batch_size, 3)

        def compute_actions(self, observations, state):
            drawn = self.rng.integers(3, size=len(state))
            moves = np.where(state == 3, drawn, state)
            return moves, moves, {}

    class BeatLast(kerasrl.ScriptedPolicy):
        def compute_actions(self, observations, state):
            return (observations + 1) % 3, state, {}

    learner = kerasrl.PPO(
        policy={"cell": "lstm", "previous_inputs": True, "hidden_units": (32,)},
        rollout_length=50,
        seed=seed,
    )
    agent = MultiAgent(
        {"learner": learner, "rule": BeatLast(), "same": Same()},
        {"player_0": "learner", "player_1": "rule"},
        seed=seed,
    )
    agent.fit("rock_paper_scissors", steps=steps or 40_000, verbose=0)
    for left, right in (("rule", "same"), ("learner", "rule")):
        sides = {"player_0": left, "player_1": right}
        result = agent.evaluate(
            "rock_paper_scissors", 100, seed=0, verbose=0, mapping=sides
        )
        mean = result[f"return_mean_{left}"]
        yield {"algorithm": left, "against": right, "return": mean}


RUNS = {
    "rock-paper-scissors": rock_paper_scissors,
    "two-step": two_step,
    "matrix": matrix,
    "tic-tac-toe": tic_tac_toe,
    "spread": spread,
    "spread-separate": lambda seed, steps: spread(seed, steps, shared=False),
}


def main():
    """Runs what was named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="*", metavar="RUN", help=", ".join(RUNS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="Environment steps of each run.")
    args = parser.parse_args()
    unknown = set(args.runs) - set(RUNS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in args.runs or RUNS:
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            start = time.perf_counter()
            for result in RUNS[name](seed, args.steps):
                seconds = round(time.perf_counter() - start, 1)
                row = {"seed": seed, "seconds": seconds, **result}
                print(name, json.dumps(row), flush=True)
                if args.steps is None:
                    kept = found.setdefault(name, [])
                    kept[:] = [r for r in kept if not _same(r, row)] + [row]
                    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def _same(left, right):
    """Whether two rows are of the same run."""
    keys = ("seed", "algorithm", "game", "side", "against")
    if "agent_steps" in left:
        return left["seed"] == right["seed"] and (
            left["agent_steps"] // 10_000 == right["agent_steps"] // 10_000
        )
    return all(left.get(key) == right.get(key) for key in keys)


if __name__ == "__main__":
    main()
