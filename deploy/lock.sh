#!/usr/bin/env bash
# Pins every dependency, from pyproject.toml: requirements.lock (run), requirements-dev.lock (run and tests),
# requirements-console.lock (what the console needs beside), requirements-bench.lock (run and Open3D). A release is
# made from requirements.lock alone: the console is one for all releases.
# torch stays at its plain version: pip takes a CPU build where one is provided, the CUDA build elsewhere; what
# the CUDA build needs is pinned exactly by torch itself.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"${PYTHON:-python3}" -m venv "$tools"
"$tools/bin/pip" install --quiet --disable-pip-version-check pip-tools
options=(--quiet --strip-extras --no-header --no-annotate --no-emit-index-url --no-emit-find-links
  --no-emit-trusted-host --no-emit-options)
"$tools/bin/pip-compile" "${options[@]}" --extra dev --extra console --output-file requirements-dev.lock pyproject.toml
"$tools/bin/pip-compile" "${options[@]}" --constraint requirements-dev.lock --output-file requirements.lock pyproject.toml
"$tools/bin/pip-compile" "${options[@]}" --constraint requirements-dev.lock --extra bench \
  --output-file requirements-bench.lock pyproject.toml
"$tools/bin/pip-compile" "${options[@]}" --constraint requirements-dev.lock --extra console \
  --output-file requirements-console.lock pyproject.toml
sed -i -E 's/^torch==([0-9.]+)\+.*/torch==\1/' requirements*.lock
