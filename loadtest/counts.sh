#!/usr/bin/env bash
# Counts the instructions of a command's steps with callgrind, and fails where one takes more than it
# did: a copy, a look-up or a lock too many shows, on a busy machine as on an idle one.
#   loadtest/counts.sh            compares with loadtest/counts.txt, where the compiler is the same
#   loadtest/counts.sh --write    writes what it counts there
#   loadtest/counts.sh --release  only prints, of a release build
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
counts=$here/counts.txt
# Hash tables are seeded by chance, and a collision costs a few.
tolerance_percent=3

mode=${1:-}
case $mode in '' | --write | --release) ;; *) echo "usage: $0 [--write | --release]" >&2 && exit 2 ;; esac
if ! command -v valgrind >/dev/null; then
    echo 'valgrind is not installed: instructions were not counted'
    exit 0
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# The program that a package's tests were built into.
program() {
    cargo test ${release:+--release} --locked --package "$1" "$2" --no-run </dev/null 2>&1 |
        sed -nE 's/^ *Executable .*\((.*)\)$/\1/p'
}

release=
[ "$mode" = --release ] && release=yes
compiler=$(rustc -vV | sed -nE 's/^(host|release): //p' | sort -r | tr '\n' ' ')
counted_with=$(sed -n 's/^# Counted with: //p' "$counts")
if [ -z "$mode" ] && [ "$counted_with" != "$compiler" ]; then
    echo "counted with $counted_with, and this is $compiler: not compared"
    mode=--print
fi
declare -A programs
failed=0
written=
while IFS= read -r line; do
    if [[ $line == '# Counted with: '* ]]; then
        written+="# Counted with: $compiler"$'\n'
        continue
    elif [[ $line == '#'* || -z $line ]]; then
        written+=$line$'\n'
        continue
    fi
    read -r package target test function times before <<<"$line"
    built=$package$target
    if [ -z "${programs[$built]:-}" ]; then
        programs[$built]=$(program "$package" "$target" || true)
        [ -x "${programs[$built]}" ] || { echo "$package $target: its tests do not build" >&2; exit 1; }
    fi
    if ! valgrind --tool=callgrind --toggle-collect="*$function*" --callgrind-out-file="$scratch/out" \
        "${programs[$built]}" --exact "$test" --test-threads=1 </dev/null >"$scratch/log" 2>&1 ||
        ! grep -q '^test result: ok. 1 passed' "$scratch/log"; then
        cat "$scratch/log" >&2
        echo "$test: no such test, or it fails" >&2
        exit 1
    fi
    total=$(sed -nE 's/^(summary|totals): ([0-9]+).*/\2/p' "$scratch/out" | tail -n 1)
    each=$((${total:-0} / times))
    [ "$each" -gt 0 ] || { echo "$test: nothing of $function was counted" >&2; exit 1; }
    verdict=
    if [ -z "$mode" ]; then
        verdict="before $before"
        if [ $((each * 100)) -gt $((before * (100 + tolerance_percent))) ]; then
            verdict="MORE than before: $before"
            failed=1
        elif [ $((each * 100)) -lt $((before * (100 - tolerance_percent))) ]; then
            verdict="less than before: $before (keep it: $0 --write)"
        fi
    fi
    printf '%8d instructions  %-62s %s\n' "$each" "$test" "$verdict"
    written+=$(printf '%-24s %-16s %-63s %-27s %5d %7d' "$package" "$target" "$test" "$function" "$times" "$each")$'\n'
done <"$counts"
case $mode in
'') [ "$failed" = 0 ] && echo 'counts: PASS' || { echo 'counts: FAIL'; exit 1; } ;;
--write) printf '%s' "$written" >"$counts" && echo 'counts: written' ;;
*) echo 'counts: not compared' ;;
esac
