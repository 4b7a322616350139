"""Packaging of kerasrl. Tool settings live in `pyproject.toml`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
INIT = (ROOT / "kerasrl" / "__init__.py").read_text(encoding="utf-8")
VERSION = re.search(r'^__version__ = "(.+)"$', INIT, re.MULTILINE).group(1)

ATARI = ["ale-py>=0.12"]
BOX2D = ["gymnasium[box2d]>=1.1"]
MUJOCO = ["gymnasium[mujoco]>=1.1"]
# Pixels and films of the classic environments.
VIDEO = ["gymnasium[classic-control]>=1.1", "moviepy>=1.0"]
# What a Horovod built by scripts/install_horovod.sh needs; pip cannot build Horovod
# itself beside a current TensorFlow.
HOROVOD = ["cloudpickle", "psutil", "pyyaml", "packaging"]
# Journals, and samplers with defaults that need no argument any more.
OPTUNA = ["optuna>=5"]
PLOT = ["matplotlib"]
# Only h5py is needed to read and write Minari's files.
MINARI = ["h5py>=3.9", "minari>=0.5.3", "pillow"]
# Of several agents. Most of PettingZoo's environments need more of its own extras.
PETTINGZOO = ["pettingzoo>=1.25", "pygame-ce>=2.5"]
MPE = ["mpe2>=1.1", *PETTINGZOO]
# Workers on other machines, and Ray's own sweeps.
RAY = ["ray[tune]>=2.40"]
NOTEBOOKS = ["jupyter", "nbclient", "ipykernel"] + PLOT + VIDEO
TEST = [
    "pytest>=8",
    "pytest-xdist>=3",
    "hypothesis>=6",
    "mypy>=1.11",
    # Formatting changes between minor releases: one is agreed on here and in
    # .pre-commit-config.yaml.
    "ruff>=0.17,<0.18",
    "nbclient",
    "nbformat",
    "ipykernel",
    *PLOT,
    *ATARI,
    *OPTUNA,
    *VIDEO,
    *RAY,
    *MINARI,
    *MPE,
]

setup(
    name="kerasrl",
    version=VERSION,
    description="Deep reinforcement learning in Keras 3",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    author="The kerasrl authors",
    python_requires=">=3.11",
    packages=find_packages(include=["kerasrl", "kerasrl.*"]),
    package_data={"kerasrl": ["py.typed", "tuned/*.yaml"]},
    include_package_data=True,
    zip_safe=False,
    install_requires=[
        "tensorflow>=2.16",
        "keras>=3.10",
        "gymnasium>=1.1",
        "numpy",
        "tensorboard",
        # For workers; gymnasium needs it as well.
        "cloudpickle",
        # Small ones that replace code of our own: the command line, its YAML files,
        # trees of arrays where TensorFlow is not imported, the line that shows
        # progress. Keras needs the last two as well.
        "click>=8.1",
        "pyyaml>=6.0",
        "optree>=0.12",
        "rich>=13.0",
    ],
    extras_require={
        "atari": ATARI,
        "box2d": BOX2D,
        "mujoco": MUJOCO,
        "minari": MINARI,
        "video": VIDEO,
        # Stable-Baselines3 takes the frames of games from OpenCV.
        "bench": [
            "stable-baselines3>=2.9,<3",
            "sb3-contrib>=2.9,<3",
            "torch>=2.3",
            "opencv-python-headless",
            *ATARI,
        ],
        "pettingzoo": PETTINGZOO,
        "mpe": MPE,
        "plot": PLOT,
        "horovod": HOROVOD,
        "notebooks": NOTEBOOKS,
        "optuna": OPTUNA,
        "ray": RAY,
        "test": TEST,
        "dev": TEST + NOTEBOOKS + ["pre-commit"],
    },
    entry_points={"console_scripts": ["kerasrl = kerasrl.cli:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
