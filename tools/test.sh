#!/usr/bin/env bash
# Runs the tests that this user may run, and says which it leaves out. Two runs go side by side, for one computes and
# the other waits for timers and packets most of the time. Arguments are pytest's: then it is one run.
set -euo pipefail
cd "$(dirname "$0")/.."

present() {
	for folder in "$@"; do
		[ -z "$(find "tests/$folder" -name 'test_*.py' -print -quit 2>/dev/null)" ] || echo "tests/$folder"
	done
}
mapfile -t pure < <(present unit fuzz)
mapfile -t loading < <(present datapath faults kernels)
mapfile -t live < <(present sandbox cluster)

if [ "$(id -u)" -ne 0 ]; then
	echo "test: not root, so only tests/unit and tests/fuzz run."
	echo "test: left out: ${live[*]} ${loading[*]} (they load programs into the kernel and make network namespaces);"
	echo "test: 'sudo make test' runs them too."
	exec .venv/bin/python -m pytest "${pure[@]}" "$@"
fi
[ $# -eq 0 ] || exec .venv/bin/python -m pytest "${pure[@]}" "${live[@]}" "${loading[@]}" "$@"

said=$(mktemp)
trap 'kill "$beside" 2>/dev/null || true; rm -f "$said"' EXIT
echo "test: ${pure[*]} ${loading[*]} run beside the others; what they say comes last"
.venv/bin/python -m pytest "${pure[@]}" "${loading[@]}" >"$said" 2>&1 &
beside=$!
failed=0
.venv/bin/python -m pytest "${live[@]}" || failed=$?
wait "$beside" || failed=$?
echo "test: ${pure[*]} ${loading[*]}"
cat "$said"
exit "$failed"
