"""Worker processes, started from the kernel of a notebook."""

import pathlib

import nbclient
import nbformat

ROOT = pathlib.Path(__file__).parents[2]
CELL = """
import gymnasium
import kerasrl

class Shorter(gymnasium.Wrapper):
    def __init__(self):
        super().__init__(gymnasium.make("CartPole-v1", max_episode_steps=7))

agent = kerasrl.PPO(rollout_length=16, num_epochs=1, minibatch_size=64, seed=0)
agent.compile(jit_compile=False)
history = agent.fit(Shorter, steps=256, num_envs=4, num_workers=2, verbose=0)
print(agent.env_steps, max(history.history["episode_length_mean"]) <= 7)
"""


def test_an_environment_of_a_cell_runs_in_workers(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    printed = [output.get("text", "") for output in notebook.cells[0].outputs]
    assert "256 True" in "".join(printed)
