"""What commands let through of what others have to say."""

import logging
import sys

import pytest

from kerasrl.cli import messages


@pytest.fixture(autouse=True)
def logger():
    """The logger as it was, whatever a test does to it."""
    logger = logging.getLogger("kerasrl")
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.mark.parametrize(
    ("verbosity", "expected"),
    [
        (0, ["a warning"]),
        (1, ["what happens", "a warning"]),
        (2, ["a detail", "what happens", "a warning"]),
        (3, ["a detail", "what happens", "a warning"]),
    ],
)
def test_levels(verbosity, expected, capsys):
    for _ in range(2):  # One handler, however many commands a process has run.
        messages.show_messages(verbosity)
    logger = logging.getLogger("kerasrl.somewhere")
    logger.debug("a detail")
    logger.info("what happens")
    logger.warning("a warning")
    output, lines = capsys.readouterr()
    assert output == ""
    assert [line.split(" ", 3)[3] for line in lines.splitlines()] == expected


def test_long_messages_are_not_wrapped_in_a_file(capsys):
    messages.show_messages(1)
    logging.getLogger("kerasrl").info("word " * 60)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_import_is_silent_once(tmp_path, monkeypatch, capfd):
    (tmp_path / "loud.py").write_text("import os; os.write(2, b'loud')")
    (tmp_path / "broken.py").write_text(
        "import os; os.write(2, b'reason'); raise RuntimeError"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = list(sys.meta_path)
    messages.quiet_import("loud")
    import loud

    assert sys.meta_path == before and capfd.readouterr().err == ""
    messages.quiet_import("loud")  # Is imported already: nothing to do.
    assert sys.meta_path == before
    exec(loud.__loader__.get_code("loud"), {})
    assert capfd.readouterr().err == "loud"
    messages.quiet_import("broken")
    with pytest.raises(RuntimeError):
        import broken  # noqa: F401
    assert capfd.readouterr().err == "reason"
    del sys.modules["loud"]
