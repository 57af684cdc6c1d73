#!/usr/bin/env bash
# Leaves out one guard after another, in a schedule in which nothing else stands between the fault
# and the violation, and sees that chaos finds it; and that the same schedules pass with all guards.
#   loadtest/guards.sh PROGRAM     a loadtest that was built with the feature sabotage
# SEEDS and GUARDS, separated by spaces, choose; by default all guards with seeds 1 to 3.
set -euo pipefail
loadtest=$1
seeds=${SEEDS:-1 2 3}
guards=${GUARDS:-fence ledger timeline anchor pool}
folder=target/farwrite/guards

# guard, the faults of its schedule, the laws that it keeps
schedules='
fence     worker_forced,worker_stop  order_stream|order_acknowledged|outcome_missing|effect_
ledger    worker_deploy,worker_kill  effect_twice
timeline  failover                   read_stale|read_back|visible_too_early
anchor    broker_restore             outcome_missing
pool      replica_pause              read_stale|read_back
'

mkdir -p target/farwrite
missed=0
while read -r guard faults laws; do
    [ -n "$guard" ] && [[ " $guards " == *" $guard "* ]] || continue
    if ! "$loadtest" chaos --seed 1 --seconds 30 --faults "$faults" --json "$folder/none.json" >"$folder-$guard-none.log" 2>&1; then
        echo "$guard: its schedule fails with the guard in place, see $folder-$guard-none.log"
        missed=1
        continue
    fi
    found=
    for seed in $seeds; do
        if FARWRITE_SABOTAGE=$guard "$loadtest" chaos --seed "$seed" --seconds 30 --faults "$faults" --json "$folder/$guard.json" >"$folder-$guard.log" 2>&1; then
            continue
        fi
        if grep -qE "^($laws)" "$folder-$guard.log"; then
            found=$seed
            break
        fi
    done
    if [ -n "$found" ]; then
        echo "$guard: found with seed $found: $(grep -cE "^($laws)" "$folder-$guard.log") violations, such as"
        grep -m1 -E "^($laws)" "$folder-$guard.log"
    else
        echo "$guard: NOT found, see $folder-$guard.log"
        missed=1
    fi
done <<<"$schedules"
[ "$missed" = 0 ] && echo "guards: PASS" || { echo "guards: FAIL"; exit 1; }
