#!/usr/bin/env bash
# Makes ./venv with what requirements.txt pins, for the peers of `bench segment` that are used from Python; needs python3
# with its venv module and, for hnswlib, a C++ compiler. Does nothing when the environment is there and newer than
# requirements.txt.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
VENV=$HERE/venv

[ "$VENV/.ok" -nt "$HERE/requirements.txt" ] && exit 0
rm -rf "$VENV"
python3 -m venv "$VENV"
"$VENV/bin/pip" --quiet --disable-pip-version-check install --requirement "$HERE/requirements.txt"
touch "$VENV/.ok"
