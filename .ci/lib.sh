# What .ci/run and .ci/long share: stages with a time budget.
set -euo pipefail
export GOFLAGS="${GOFLAGS:-} -mod=readonly" CGO_ENABLED=0
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# stage NAME MINUTES runs the function NAME in a subshell with the same shell
# options, and fails the run where it fails or takes longer than its budget.
# With arguments, the script runs only the stages they name.
stage() {
	local name=$1 minutes=$2 begin=$SECONDS pid watcher rc=0 took
	if [ ${#only[@]} -gt 0 ] && [[ " ${only[*]} " != *" $name "* ]]; then return; fi
	echo "=== $name (at most $minutes min)"
	# A job of its own process group, so that all that it started can be ended.
	set -m
	(set -euo pipefail; "$name") </dev/null &
	pid=$!
	(sleep $((minutes * 60)); echo "$name: over its budget of $minutes min"; kill -- -"$pid") 2>/dev/null &
	watcher=$!
	set +m
	wait "$pid" || rc=$?
	kill -- -"$watcher" 2>/dev/null || true
	wait "$watcher" 2>/dev/null || true
	took=$((SECONDS - begin))
	if [ "$rc" -ne 0 ]; then
		echo "--- $name FAILED after $took s (status $rc)"
		exit 1
	fi
	echo "--- $name: $took s"
}

# need COMMAND PACKAGE installs a Debian package where a command is missing.
need() {
	command -v "$1" >/dev/null && return
	if [ -z "${apt_updated:-}" ]; then
		apt-get update -qq
		apt_updated=1
	fi
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$2" >/dev/null
}

# gotest runs go test and fails on a skipped test too.
gotest() { go test -json "$@" | "$work/testreport"; }

# nodetest DIR runs the tests of an npm package, and fails on a skipped one.
nodetest() {
	(cd "$1" && node --test) >"$work/node.log" || { cat "$work/node.log"; return 1; }
	grep -E '^# (pass|fail|skipped) ' "$work/node.log"
	grep -q '^# skipped 0$' "$work/node.log"
}

# modules DIR installs the npm packages of a folder, exactly as locked.
modules() { (cd "$1" && npm ci --silent --no-audit --no-fund); }
