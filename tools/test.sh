#!/usr/bin/env bash
# Runs the tests that this user may run, and says which it leaves out.
set -euo pipefail
cd "$(dirname "$0")/.."

folders=()
for folder in unit fuzz datapath sandbox faults cluster kernels; do
	[ -n "$(find "tests/$folder" -name 'test_*.py' -print -quit 2>/dev/null)" ] && folders+=("tests/$folder")
done
if [ "$(id -u)" -ne 0 ]; then
	echo "test: not root, so only tests/unit and tests/fuzz run."
	echo "test: left out: ${folders[*]:2} (they load programs into the kernel and make network namespaces);"
	echo "test: 'sudo make test' runs them too."
	folders=(tests/unit tests/fuzz)
fi
exec .venv/bin/python -m pytest "${folders[@]}" "$@"
