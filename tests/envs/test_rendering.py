"""Windows are refused where there is no display, before a library ends the process."""

import sys

import gymnasium
import pytest

from kerasrl import envs
from kerasrl.envs.rendering import check_display


@pytest.fixture(autouse=True)
def no_display(monkeypatch):
    names = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER", "SDL_VIDEO_DRIVER")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")


@pytest.mark.parametrize(
    "arguments",
    [{"render_mode": "human"}, {"env_config": {"render_mode": "human"}}],
)
def test_no_window_without_a_display(arguments):
    with pytest.raises(ValueError, match="no display.*VideoRecorder.*SDL_VIDEODRIVER"):
        envs.make_envs("CartPole-v1", num_envs=1, **arguments)


def test_a_factory_is_asked_no_differently():
    def factory(render_mode=None):
        return gymnasium.make("CartPole-v1", render_mode=render_mode)

    with pytest.raises(ValueError, match="no display"):
        envs.make_envs(factory, num_envs=1, render_mode="human")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("DISPLAY", ":0", True),
        ("WAYLAND_DISPLAY", "wayland-0", True),
        ("SDL_VIDEODRIVER", "dummy", True),
        ("SDL_VIDEODRIVER", "offscreen", True),
        ("SDL_VIDEODRIVER", "x11", False),
        ("DISPLAY", "", False),
    ],
)
def test_where_there_is_something_to_draw_on(name, value, allowed, monkeypatch):
    monkeypatch.setenv(name, value)
    if allowed:
        check_display()
    else:
        with pytest.raises(ValueError, match="no display"):
            check_display()


def test_other_systems_have_windows(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    check_display()


def test_pixels_need_no_display():
    envs.make_envs("CartPole-v1", num_envs=1, render_mode="rgb_array").close()
