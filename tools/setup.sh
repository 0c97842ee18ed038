#!/usr/bin/env bash
# Installs what the project needs and is not there: Debian packages, the virtual environment with the
# locked versions, the compiled datapath. Says what it does; does nothing when nothing has changed.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }

packages=(clang-19 llvm-19 libbpf-dev libbpf1 iproute2 procps util-linux etcd-server iperf3 make)
missing=()
for package in "${packages[@]}"; do
	dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done

python=""
for candidate in python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
	if "$candidate" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
		python=$candidate
		break
	fi
done
[ -n "$python" ] || missing+=(python3 python3-venv)

if [ ${#missing[@]} -gt 0 ]; then
	if [ "$(id -u)" -ne 0 ]; then
		say "these Debian packages are missing, and only root can install them: ${missing[*]}" >&2
		say "run 'sudo make setup' once" >&2
		exit 1
	fi
	say "installing Debian packages: ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
	python=${python:-python3}
fi

stamp=.venv/.setup-stamp
wanted=$(cat pyproject.toml requirements.lock tools/setup.sh build_backend/*.py | sha256sum | cut -d' ' -f1)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
	if [ ! -x .venv/bin/python ]; then
		say "creating .venv with $("$python" --version)"
		"$python" -m venv .venv
	fi
	say "installing the locked Python packages"
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	say "installing axoneme into .venv (editable)"
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	echo "$wanted" >"$stamp"
fi
.venv/bin/python build_backend/compile_bpf.py
say "ready: .venv/bin/axo"
