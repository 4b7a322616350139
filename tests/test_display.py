"""The line that shows progress, in a terminal, a pipe and a notebook."""

import os
import pty
import re
import sys
import threading

import keras
import nbclient
import nbformat
import pytest

import kerasrl
from kerasrl import display

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A terminal that keeps what is written to it; `sys.stdout` while it is open."""

    def __init__(self):
        self.master, slave = pty.openpty()
        self.stream = os.fdopen(slave, "w", encoding="utf-8")
        self.received = b""
        self.reader = threading.Thread(target=self._read)

    def _read(self):
        while True:
            try:
                received = os.read(self.master, 65536)
            except OSError:
                return
            if not received:
                return
            self.received += received

    def __enter__(self):
        self.reader.start()
        self.stdout, sys.stdout = sys.stdout, self.stream
        return self

    def __exit__(self, *exception):
        assert sys.stdout is self.stream, "the display must give the stream back"
        sys.stdout = self.stdout
        self.stream.close()
        self.reader.join()
        os.close(self.master)

    @property
    def text(self):
        return self.received.decode()

    @property
    def drawings(self):
        """What was drawn one over the other, and what was printed, without colours."""
        parts = [CONTROL.sub("", x) for x in re.split(r"[\r\n]+", self.text)]
        return [part for part in parts if part.strip()]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def agent():
    """One that has compiled everything already."""
    agent = kerasrl.A2C({"hidden_units": (4,)}, seed=0)
    agent.fit("CartPole-v1", steps=40, verbose=0)
    agent.evaluate("CartPole-v1", episodes=1, verbose=0)
    return agent


def show(values, done=34_816):
    """Draws in a terminal of as many columns as the environment says."""
    with Terminal() as terminal:
        with display.Display(100_000, lambda: values) as shown:
            shown.update(1)
            # A moment later, so that there is a speed.
            shown._marks[0] = (shown._marks[0][0] - 1.0, 1)
            shown._next_time = 0.0
            shown.update(done)
    return terminal


# A terminal -------------------------------------------------------------------


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 81, 100, 120, 250])
def test_a_line_fits_its_terminal(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    values = {"return": -1178.31, "evaluation": 1.5, "length": 200, "loss": -0.0123}
    terminal = show(values)
    assert max(map(len, terminal.drawings)) <= columns - 1
    # One line, drawn anew in its place: only the end of it begins another.
    assert terminal.text.count("\n") == 1


def test_eighty_columns_hold_all_that_matters():
    line = show({"return": -1178.3, "length": 200, "loss": 35.01}).drawings[-2]
    assert re.fullmatch(
        r"34\.8k/100k\s+[━╸╺]{6,} return -1178\.3 length 200 loss 35\.0 "
        r"\S+k? steps/s 0:\d\d left",
        line,
    )


def test_a_narrow_line_keeps_the_return_and_the_time(monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    values = {"return": 231.4, "length": 231, "loss": 0.5}
    line = show(values).drawings[-2]
    assert "return 231.4" in line and "left" in line and "loss" not in line


def test_the_last_line_says_how_long_it_took():
    terminal = show({"return": 1.0}, done=100_000)
    assert re.search(r"100k/100k .* in 0:0\d$", terminal.drawings[-1])
    assert terminal.text.endswith("\x1b[?25h"), "the cursor is back"


def test_fit_has_one_bar_over_all_steps(agent):
    class Talks(kerasrl.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            print("words " * 30 if epoch == 1 else "word")

    with Terminal() as terminal:
        agent.fit("CartPole-v1", steps=160, steps_per_epoch=40, callbacks=[Talks()])
    bars = [line for line in terminal.drawings if "/160" in line]
    # Something is there while everything is being compiled.
    assert re.match(r"0/160 ━+ +return \S+ length \S+ loss -$", bars[0])
    assert re.match(r"40/160 ━+[╸╺]?━+ +return \S+ length \S+ loss \S+$", bars[1])
    assert re.search(r"^160/160 ━+ return .* steps/s in 0:\d\d$", bars[-1])
    assert max(map(len, bars)) <= 79
    # What is printed meanwhile stands above it, whole.
    printed = CONTROL.sub("", terminal.text)
    assert printed.count("word\r\n") == 3 and "words " * 30 in printed
    assert terminal.drawings[-1] == bars[-1]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_gives_the_terminal_back(agent, error):
    class Fails(kerasrl.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise error

    with Terminal() as terminal:
        with pytest.raises(error):
            agent.fit("CartPole-v1", epochs=3, callbacks=[Fails()])
        print("the next thing")
    assert terminal.text.endswith("\x1b[?25hthe next thing\r\n")
    assert not display.is_open()


def test_evaluate_has_a_bar_that_goes_when_it_is_done(agent):
    with Terminal() as terminal:
        agent.evaluate("CartPole-v1", episodes=20, seed=0)
    assert re.match(r"20/20 episodes ━+ return .* length \d+", terminal.drawings[-1])
    # Up, and away with it.
    assert terminal.text.rstrip("\r").endswith("\x1b[1A\x1b[2K")


def test_there_is_one_bar_at_a_time(agent):
    class Evaluates(kerasrl.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.agent.evaluate("CartPole-v1", episodes=1)

    periodic = kerasrl.callbacks.PeriodicEvaluation(
        "CartPole-v1", every_epochs=1, episodes=1
    )
    with Terminal() as terminal:
        agent.fit("CartPole-v1", steps=80, callbacks=[Evaluates(), periodic])
    assert "episodes" not in terminal.text
    assert "evaluation " in terminal.drawings[-1]


def test_a_silent_fit_stays_silent(agent):
    class Evaluates(kerasrl.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.agent.evaluate("CartPole-v1", episodes=1)

    with Terminal() as terminal:
        agent.fit("CartPole-v1", steps=80, callbacks=[Evaluates()], verbose=0)
    assert terminal.text == ""


def test_only_the_first_rank_shows_anything(agent, monkeypatch):
    monkeypatch.setattr(type(agent.replicas), "is_chief", False, raising=False)
    with Terminal() as terminal:
        for verbose in ("auto", 1, 2):
            agent.fit("CartPole-v1", steps=40, verbose=verbose)
            agent.evaluate("CartPole-v1", episodes=1, verbose=verbose)
    assert terminal.text == ""


# A pipe -----------------------------------------------------------------------


def test_a_pipe_gets_plain_lines_from_time_to_time(agent, capsys):
    agent.fit("CartPole-v1", steps=4000, steps_per_epoch=40)
    lines = capsys.readouterr().out.splitlines()
    assert 10 <= len(lines) <= 12
    assert re.fullmatch(r"40/4,000 steps: return \S+, length \S+, loss \S+", lines[0])
    assert re.fullmatch(
        r"4,000/4,000 steps: return \S+, length \S+, loss \S+, \S+ steps/s, in 0:\d\d",
        lines[-1],
    )
    assert all(line.isprintable() and line.isascii() for line in lines)


def test_an_evaluation_in_a_pipe_is_silent_unless_it_lasts(agent, capsys):
    agent.evaluate("CartPole-v1", episodes=2)
    assert capsys.readouterr().out == ""
    agent.evaluate("CartPole-v1", episodes=2, verbose=2)
    assert re.fullmatch(
        r"2 episodes: return \S+, length \S+\n", capsys.readouterr().out
    )
    agent.evaluate("CartPole-v1", episodes=2, verbose=0)
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="verbose='loud'"):
        agent.evaluate("CartPole-v1", episodes=2, verbose="loud")


def test_two_is_a_line_an_epoch(agent, capsys):
    agent.fit("CartPole-v1", epochs=3, steps_per_epoch=40, verbose=2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and max(map(len, lines)) <= 80
    assert re.fullmatch(
        r"Epoch 3/3: [\d,]+ steps, return \S+, length \S+, loss \S+, steps/s \S+",
        lines[-1],
    )
    agent.fit("CartPole-v1", steps=40, verbose=0)
    assert capsys.readouterr().out == ""


def test_keras_own_logger_replaces_the_line(agent, capsys):
    logger = keras.callbacks.ProgbarLogger()
    agent.fit("CartPole-v1", steps=40, verbose=1, callbacks=[logger])
    output = capsys.readouterr().out
    assert "gradient_norm" in output and "40/40 steps" not in output


# A notebook -------------------------------------------------------------------


def test_a_notebook_has_one_line_without_a_widget(monkeypatch):
    code = (
        "from kerasrl import display\n"
        "with display.Display(100_000, lambda: {'return': 231.4}) as shown:\n"
        "    for done in (1, 50_000, 100_000):\n"
        "        shown._next_time = 0.0\n"
        "        shown.update(done)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, timeout=60).execute()
    (output,) = notebook.cells[0].outputs
    assert output.output_type == "display_data"
    html = output.data["text/html"]
    assert "100k/100k" in html and "return 231.4" in html and "━" in html
    assert re.search(r" in 0:0\d</pre>", html)


# Numbers ----------------------------------------------------------------------


def test_numbers_are_short():
    values = (231.42, 9.534, 0.012345, -0.00051, -1234567.0, 0.0, float("nan"), 200)
    assert [display.number(x) for x in values] == [
        *("231.4", "9.53", "0.012", "-5e-04", "-1.2e+06", "0", "-", "200"),
    ]
    values = (0, 99, 1024, 9999, 34_816, 99_960, 999_400, 999_940, 1_250_000, 3e9)
    assert [display.count(x) for x in values] == [
        *("0", "99", "1,024", "9,999", "34.8k", "100k", "999k"),
        *("1M", "1.2M", "3G"),
    ]
    assert [display.clock(x) for x in (0.4, 59.6, 3599, 3600, 90_061)] == [
        *("0:00", "1:00", "59:59", "1:00:00", "25:01:01"),
    ]
