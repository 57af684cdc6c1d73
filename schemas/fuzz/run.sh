#!/usr/bin/env bash
# Fuzzes for so many seconds what comes off the wire: schemas/fuzz/run.sh SECONDS
# Needs a stable Rust and a C++ compiler (libFuzzer is C++). See fuzz_targets/wire.rs.
set -euo pipefail

seconds=${1:-}
if ! [[ $# -eq 1 && $seconds =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: $0 SECONDS" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
target_dir=${CARGO_TARGET_DIR:-$here/target}
host=$(rustc -vV | sed -n 's/^host: //p')

# libFuzzer's counters, without a sanitizer: those need a nightly compiler. Naming the host as the
# target keeps the counters out of build scripts, which have no libFuzzer to link.
flags="--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module"
for arg in level=4 inline-8bit-counters pc-table; do
    flags+=" -Cllvm-args=-sanitizer-coverage-$arg"
done
RUSTFLAGS=$flags cargo build --quiet --release --locked --manifest-path "$here/Cargo.toml" \
    --target "$host" --target-dir "$target_dir"
wire=$target_dir/$host/release/wire

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch/corpus" "$here/artifacts"

# What is new goes to the first folder; the seeds are only read.
if RUST_BACKTRACE=0 "$wire" -max_total_time="$seconds" -max_len=65536 -timeout=5 -rss_limit_mb=2048 \
    -dict="$here/wire.dict" -artifact_prefix="$here/artifacts/" \
    "$scratch/corpus" "$here/seeds" >"$scratch/log" 2>&1; then
    grep -E '^(#[0-9]+[[:space:]]+)?(DONE|Done)' "$scratch/log"
    exit
fi

artifact=$(sed -n 's/.*Test unit written to //p' "$scratch/log" | tail -n 1)
if [[ -n $artifact ]]; then
    sed -nE '/panicked at|ALARM:|ERROR: libFuzzer/,$p' "$scratch/log" |
        grep -vE '^(#|MS:|0x|NOTE:|SUMMARY:|artifact_prefix|note: run with)|better crash reports' || true
    echo "FAIL: $artifact"
    echo "replay: RUST_BACKTRACE=1 $wire $artifact"
else
    tail -n 40 "$scratch/log"
    echo "FAIL: libFuzzer ended without an artifact"
fi
exit 1
