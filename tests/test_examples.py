"""Every example and notebook runs, with few steps."""

import os
import pathlib
import runpy
import subprocess
import sys

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
#: Those whose workers import what the script defines.
IN_A_PROCESS_OF_ITS_OWN = (
    *("asynchronous", "cluster", "custom_trainable"),
    "parallel_rollouts",
)
FEWER = {"pbt_ppo": ("--learning-rates", "1e-5", "1e-3")}
WITHOUT_XLA = """
from kerasrl.training import compiled
compiled.gains_from_xla = lambda agent: False
"""
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_there_are_examples_and_notebooks():
    assert len(EXAMPLES) >= 5 and NOTEBOOKS


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path, tmp_path, monkeypatch, capsys):
    arguments = [str(path), "--steps", "1100", *FEWER.get(path.stem, ())]
    if path.stem in IN_A_PROCESS_OF_ITS_OWN:
        result = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,  # Not for ever, where it waits for a cluster that is gone.
        )
        assert result.returncode == 0, result.stderr
        output, errors = result.stdout, result.stderr
    else:
        # As Python does it, without another import of TensorFlow.
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", arguments)
        runpy.run_path(str(path), run_name="__main__")
        output, errors = capsys.readouterr()
    assert output.strip()
    assert "Warning" not in errors, errors


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, tmp_path, monkeypatch):
    monkeypatch.setenv("KERASRL_NOTEBOOK_STEPS", "800")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs, "outputs are not kept in the repository"
    # As in the process of the tests: XLA takes seconds for each agent.
    notebook.cells.insert(0, nbformat.v4.new_code_cell(WITHOUT_XLA))
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    images = [
        output
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert len(images) >= 2, "a learning curve and an episode"
    text = "".join(
        str(output.get("data", {}))
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )
    assert " steps/s" in text, "the line that shows progress"


def test_custom_algorithm_is_short():
    text = (ROOT / "examples" / "custom_algorithm.py").read_text()
    assert len(text.splitlines()) < 40
