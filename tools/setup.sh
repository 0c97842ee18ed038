#!/usr/bin/env bash
# Installs what the project needs and is not there: Debian packages, the virtual environment with the
# locked versions, the compiled datapath. Says what it does; does nothing when nothing has changed.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# What each is for: clang and llvm compile bpf/, against libbpf-dev and linux-libc-dev; libbpf1 loads it;
# iproute2, util-linux and procps make and enter network namespaces; gcc, etcd, iperf3, curl and musl-tools serve tests and bench/, and so
# do iptables and nftables, as what bench/ compares with;
# qemu and busybox boot other kernels (tests/kernels).
packages=(clang-19 llvm-19 libbpf-dev linux-libc-dev libbpf1 iproute2 util-linux procps gcc libc6-dev etcd-server iperf3 curl musl-tools iptables nftables
	qemu-system-x86 busybox-static)
installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null | sed -n 's/^installed //p' || true)
missing=()
for package in "${packages[@]}"; do
	[[ $'\n'$installed$'\n' == *$'\n'$package$'\n'* ]] || missing+=("$package")
done
# Container runtimes, for tests of the CNI plugin, a client of Kafka, what builds the web UI's page, a browser to
# try it, and a Prometheus that reads metrics: whoever has them from elsewhere keeps those.
for pair in npm:npm chromium:chromium prometheus:prometheus kcat:kafkacat podman:podman runc:runc containerd:containerd busybox:busybox-static /usr/lib/cni/loopback:containernetworking-plugins; do
	command -v "${pair%:*}" >/dev/null || missing+=("${pair#*:}")
done

# The interpreter of an existing .venv stays; a new one gets the first that is recent enough and has venv.
suits() { "$1" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
python=""
if [ -x .venv/bin/python ]; then
	python=.venv/bin/python
else
	for candidate in python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
		if suits "$candidate"; then
			python=$candidate
			break
		fi
	done
	[ -n "$python" ] || missing+=(python3 python3-venv)
fi

if [ ${#missing[@]} -gt 0 ]; then
	command -v apt-get >/dev/null || fail "these packages are missing, and this is no Debian that could install them: ${missing[*]}"
	[ "$(id -u)" -eq 0 ] || fail "these Debian packages are missing, and only root can install them: ${missing[*]}
setup: run 'sudo make setup' once, or: sudo apt-get install ${missing[*]}"
	say "installing Debian packages: ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	# Tests start their own etcd; nobody asked for one that runs as a service.
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT
		printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
		chmod +x /usr/sbin/policy-rc.d
	fi
	apt-get update -qq
	apt-get install -qq -y --no-install-recommends --no-remove "${missing[@]}" >/dev/null </dev/null
	if [ -z "$python" ]; then
		python=/usr/bin/python3
		suits "$python" || fail "Python 3.11 or later is needed; $python is $("$python" --version)"
	fi
fi

stamp=.venv/.setup-stamp
wanted=$(cat pyproject.toml requirements.lock tools/setup.sh build_backend/*.py <(pwd) | sha256sum | cut -d' ' -f1)
if [ ! -x .venv/bin/axo ] || [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
	pip=(.venv/bin/python -m pip --quiet --disable-pip-version-check --no-input)
	if [ ! -x .venv/bin/python ]; then
		say "creating .venv with $("$python" --version)"
		"$python" -m venv .venv
	fi
	say "installing the locked Python packages"
	"${pip[@]}" install --require-hashes -r requirements.lock
	# xds-protos brings an older copy of these messages to the same place: whoever comes last is there.
	"${pip[@]}" install --require-hashes --no-deps --force-reinstall -r <(grep -A2 '^opentelemetry-proto==' requirements.lock)
	say "installing axoneme into .venv (editable)"
	"${pip[@]}" install --no-deps --no-build-isolation -e .
	echo "$wanted" >"$stamp"
fi
.venv/bin/python build_backend/compile_bpf.py
.venv/bin/python build_backend/compile_proto.py
# Without the page `axo ui` has its API alone, and the rest is whole.
.venv/bin/python build_backend/build_ui.py || say "going on without the web UI's page"
say "ready: .venv/bin/axo"
