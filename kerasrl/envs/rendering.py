"""Whether there is a window to draw in."""

import os
import sys

#: What SDL, which draws most environments, calls drivers that need a display.
_OF_A_DISPLAY = ("", "x11", "wayland")


def check_display():
    """Refuses to open a window where there is no display.

    Libraries that draw end the whole process there, without an exception.

    Raises:
        ValueError: There is no display.
    """
    if not sys.platform.startswith("linux"):
        return
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        return
    names = ("SDL_VIDEODRIVER", "SDL_VIDEO_DRIVER")
    if any(os.environ.get(name, "") not in _OF_A_DISPLAY for name in names):
        return
    raise ValueError(
        "There is no display to open a window on: neither DISPLAY nor WAYLAND_DISPLAY "
        'is set. Use render_mode="rgb_array", write a film (kerasrl rollout --video, '
        "kerasrl.callbacks.VideoRecorder), or set SDL_VIDEODRIVER=dummy for an "
        "environment that opens no window or need not."
    )
