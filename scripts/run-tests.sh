#!/usr/bin/env bash
# Runs integration tests: run-tests.sh [ARGUMENTS OF THE TEST BINARY].
#
# Most of them bound how long something may take, on servers that several share.
# One that fails beside the others is run once more by itself, as long as there
# are few; one that passes then is named at the end as unsteady, to be looked at.
# Fails where one fails twice, or where more than UNSTEADY_MAX failed at first.
set -uo pipefail
readonly UNSTEADY_MAX=3

cd "$(dirname "${BASH_SOURCE[0]}")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo test --test it -- "$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
[ "$status" != 0 ] || exit 0

mapfile -t failed < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log" | sort -u)
if [ ${#failed[@]} = 0 ] || [ ${#failed[@]} -gt "$UNSTEADY_MAX" ]; then
  exit "$status"
fi
printf 'run-tests: once more, by itself: %s\n' "${failed[@]}"
for name in "${failed[@]}"; do
  cargo test --test it -- --exact "$name" --test-threads=1 || exit 1
done
printf 'run-tests: UNSTEADY, failed beside the others and passed by itself: %s\n' "${failed[@]}" >&2
