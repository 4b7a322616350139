#!/usr/bin/env bash
# Builds and installs Horovod for one Python interpreter and its TensorFlow.
#
#   scripts/install_horovod.sh [PYTHON]     default: python3 of the PATH
#
# Horovod's last release (0.28.1) does not build beside current TensorFlow as it is:
# this script applies the changes it needs. The wheel is kept in
# ${KERASRL_CACHE:-${XDG_CACHE_HOME:-~/.cache}/kerasrl}, so that a second environment
# with the same Python and TensorFlow takes seconds. Called again, it does nothing.
#
# Variables: HOROVOD_* (such as HOROVOD_GPU_OPERATIONS=NCCL, HOROVOD_NCCL_HOME) are
# Horovod's own and reach its build; KERASRL_CACHE moves the cache.

set -euo pipefail

VERSION=0.28.1
SHA256=92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0
PYTHON=${1:-${PYTHON:-python3}}
CACHE=${KERASRL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kerasrl}

# GPU operations are chosen by the caller; these only switch off what is not needed.
export HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1
export HOROVOD_WITH_GLOO=${HOROVOD_WITH_GLOO:-1}
export HOROVOD_WITHOUT_MPI=${HOROVOD_WITHOUT_MPI:-1}
[ -z "${HOROVOD_WITH_MPI:-}" ] || unset HOROVOD_WITHOUT_MPI
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { echo "install_horovod: $*"; }

fail() {
  echo >&2
  echo "install_horovod: $*" | fmt -w 78 >&2 || echo "install_horovod: $*" >&2
  exit 1
}

# What there is ------------------------------------------------------------------

PYTHON_PATH=$(command -v "$PYTHON") || fail "There is no Python interpreter called" \
  "'$PYTHON'. Activate the environment that kerasrl is installed in, or name its" \
  "interpreter: scripts/install_horovod.sh /path/to/python."

# Without importing TensorFlow, which takes seconds.
facts=$("$PYTHON_PATH" - <<'PY'
import importlib.metadata
import importlib.util
import pathlib
import platform
import sys
import sysconfig

def version(*names, with_name=False):
    for name in names:
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return f"{name}-{found}" if with_name else found
    return ""

spec = importlib.util.find_spec("tensorflow")
folder = pathlib.Path(spec.origin).parent if spec and spec.origin else ""
names = ["tensorflow", "tensorflow-cpu", "tf-nightly", "tf-nightly-cpu"]
tensorflow = version(*names, with_name=True)
if folder and not tensorflow:
    found = importlib.metadata.packages_distributions().get("tensorflow", [])
    tensorflow = version(*found, with_name=True)
header = pathlib.Path(sysconfig.get_paths()["include"]) / "Python.h"
print(f"cp{sys.version_info.major}{sys.version_info.minor}")
print(f"{platform.system()}_{platform.machine()}".lower())
print(tensorflow or "-")
print(folder or "-")
print(version("horovod") or "-")
print(sys.prefix)
print(header if header.exists() else "-")
PY
) || fail "'$PYTHON_PATH' does not run. Name another interpreter as the argument."
{
  read -r TAG && read -r PLATFORM && read -r TENSORFLOW && read -r TENSORFLOW_DIR
  read -r INSTALLED && read -r PREFIX && read -r HEADER
} <<<"$facts"

[ "$TENSORFLOW" != - ] && [ "$TENSORFLOW_DIR" != - ] || fail "TensorFlow is not" \
  "installed for $PYTHON_PATH. Horovod is compiled against it, so it must be there" \
  "first: $PYTHON_PATH -m pip install kerasrl (or tensorflow)."

# The key changes with whatever would make another wheel: this script, and options.
options=$(env | LC_ALL=C sort | grep '^HOROVOD_' || true)
hash=$( (cat "${BASH_SOURCE[0]}"; echo "$options") | cksum | cut -d' ' -f1)
KEY="horovod-$VERSION-$TAG-$TENSORFLOW-$PLATFORM-$hash"
STAMP="$PREFIX/.$KEY"
WHEELS="$CACHE/$KEY"

if [ "$INSTALLED" = "$VERSION" ] && [ -e "$STAMP" ]; then
  say "Horovod $VERSION is installed for $TAG and $TENSORFLOW."
  exit 0
fi

# Building -----------------------------------------------------------------------

check_tools() {
  local compiler=${CXX:-g++}
  command -v "$compiler" >/dev/null || fail "There is no C++ compiler ($compiler)." \
    "Horovod is compiled here. On Debian or Ubuntu: apt-get install g++ make; on" \
    "Fedora: dnf install gcc-c++ make. Another compiler: CXX=/path/to/it."
  command -v "${CC:-gcc}" >/dev/null || fail "There is no C compiler (${CC:-gcc})." \
    "On Debian or Ubuntu: apt-get install gcc; another one: CC=/path/to/it."
  command -v make >/dev/null || fail "There is no 'make'. On Debian or Ubuntu:" \
    "apt-get install make."
  [ "$HEADER" != - ] || fail "The headers of $PYTHON_PATH (Python.h) are missing." \
    "On Debian or Ubuntu: apt-get install python3-dev (of the same version)."
  [ -d "$TENSORFLOW_DIR/include" ] || fail "$TENSORFLOW_DIR has no include folder." \
    "This TensorFlow came without its headers; install the one from PyPI."
}

has_cmake() {
  local version
  command -v cmake >/dev/null || return 1
  version=$(cmake --version | sed -n 's/^cmake version \([0-9]*\.[0-9]*\).*/\1/p')
  [ "$(printf '3.13\n%s\n' "$version" | sort -V | head -n 1)" = 3.13 ]
}

build() {
  check_tools
  local work=$1 log=$1/log.txt tools=$1/tools
  local needs=("setuptools<81" wheel packaging)
  has_cmake || needs+=("cmake>=3.13")
  # Beside the environment, not in it: its own setuptools stays.
  "$PYTHON_PATH" -m pip install --quiet --target "$tools" "${needs[@]}" \
    >"$log" 2>&1 || explain "$log" "The tools of the build (${needs[*]}) could not" \
    "be downloaded."
  export PYTHONPATH="$tools" PATH="$tools/bin:$PATH"

  echo "horovod==$VERSION --hash=sha256:$SHA256" >"$work/requirements.txt"
  "$PYTHON_PATH" -m pip download --quiet --no-deps --no-build-isolation \
    --no-binary :all: --require-hashes -r "$work/requirements.txt" -d "$work" \
    >"$log" 2>&1 || explain "$log" "The sources of Horovod $VERSION could not be" \
    "downloaded from the package index, or differ from those this script is for."
  tar -xzf "$work/horovod-$VERSION.tar.gz" -C "$work"
  patch_sources "$work/horovod-$VERSION"

  say "building Horovod $VERSION for $TAG and $TENSORFLOW: some minutes"
  CPLUS_INCLUDE_PATH="$TENSORFLOW_DIR/include/external/highwayhash:${CPLUS_INCLUDE_PATH:-}" \
    CMAKE_POLICY_VERSION_MINIMUM=3.5 \
    MAKEFLAGS="${MAKEFLAGS:--j$(getconf _NPROCESSORS_ONLN)}" \
    "$PYTHON_PATH" -m pip wheel --verbose --no-deps --no-build-isolation \
    --wheel-dir "$work/wheels" "$work/horovod-$VERSION" >"$log" 2>&1 ||
    explain "$log" "The build failed. This script is tried with TensorFlow 2.21 on" \
      "Linux; TensorFlow's headers move between versions. If the compiler was killed," \
      "memory ran out: set MAKEFLAGS=-j1."
  mkdir -p "$CACHE"
  # A folder under its final name is a complete one.
  rm -rf "$WHEELS"
  mv "$work/wheels" "$WHEELS"
}

patch_sources() {
  local lists=$1/horovod/tensorflow/CMakeLists.txt
  # Its XLA operations include headers that TensorFlow no longer ships. Gradients are
  # reduced outside XLA instead.
  grep -q xla_mpi_ops.cc "$lists" || fail "The sources of Horovod are not those this" \
    "script knows: there is no xla_mpi_ops.cc in $lists."
  sed '/xla_mpi_ops.cc/d' "$lists" >"$lists.new"
  mv "$lists.new" "$lists"
  # Its second connection forgets --network-interface and takes the address of the
  # host's own name: on Debian 127.0.1.1, where no other host can reach it.
  local context=$1/horovod/common/gloo/gloo_context.cc
  local line='global_ctx = global_context.ctx;'
  grep -q "^  $line" "$context" || fail "The sources of Horovod are not those this" \
    "script knows: there is no '$line' in $context."
  sed '/^void GlooContext::InitializeForProcessSet/,/^}/'\
's/^  attr device_attr;/  gloo_iface_ = global_context.gloo_iface_;\n&/' \
    "$context" >"$context.new"
  mv "$context.new" "$context"
}

explain() {
  local log=$1 kept="$CACHE/horovod-build.log"
  shift
  mkdir -p "$CACHE"
  cp "$log" "$kept"
  echo "--- the first errors, or the last lines" >&2
  { grep -nE -m 8 '(error|Error|ERROR)[: ]' "$log" || tail -n 15 "$log"; } >&2
  fail "$* The whole log is $kept."
}

# Installing and trying ----------------------------------------------------------

verify() {
  local log=$1/verify.txt
  cat >"$1/verify.py" <<'PY'
import horovod.tensorflow as hvd
import numpy as np
import tensorflow as tf

hvd.init()

@tf.function
def mean(x, y):
    return hvd.grouped_allreduce([x, y], op=hvd.Average)

values = mean(tf.fill([3], float(hvd.rank())), tf.fill([2, 2], 4.0 * hvd.rank()))
np.testing.assert_allclose(values[0], 0.5)
np.testing.assert_allclose(values[1], 2.0)
print(f"rank {hvd.rank()} of {hvd.size()} agrees")
PY
  # Timed, because ranks that cannot reach each other wait.
  (
    unset PYTHONPATH
    # Of this environment, whatever is activated.
    export PATH="$PREFIX/bin:$PATH" CUDA_VISIBLE_DEVICES= TF_CPP_MIN_LOG_LEVEL=2
    "$PYTHON_PATH" - "$PREFIX/bin/horovodrun" "$1/verify.py" >"$log" 2>&1 <<'PY'
import subprocess
import sys

launcher, script = sys.argv[1:]
command = [sys.executable, launcher, "-np", "2", sys.executable, script]
sys.exit(subprocess.run(command, timeout=180, check=False).returncode)
PY
  ) && [ "$(grep -c 'of 2 agrees' "$log")" = 2 ] ||
    explain "$log" "Horovod is installed, but two processes on this machine could not" \
      "average a tensor with horovodrun -np 2. Both meet through the network interface" \
      "of this host's name: check that its name resolves (getent hosts \$(hostname))" \
      "and that no firewall is in the way."
}

work=$(mktemp -d "${TMPDIR:-/tmp}/kerasrl-horovod.XXXXXX")
trap 'rm -rf "$work"' EXIT

mkdir -p "$CACHE"
if command -v flock >/dev/null; then
  # Two at once would build twice.
  exec 9>"$CACHE/horovod.lock"
  flock 9
fi
if [ -d "$WHEELS" ]; then
  say "using the wheel in $WHEELS"
else
  build "$work"
fi
"$PYTHON_PATH" -m pip install --quiet --force-reinstall --no-deps \
  "$WHEELS"/horovod-*.whl >"$work/install.txt" 2>&1 &&
  "$PYTHON_PATH" -m pip install --quiet cloudpickle psutil pyyaml packaging \
    >>"$work/install.txt" 2>&1 ||
  explain "$work/install.txt" "The wheel could not be installed."
verify "$work"
rm -f "$PREFIX"/.horovod-*
touch "$STAMP"
say "Horovod $VERSION works for $TAG and $TENSORFLOW."
