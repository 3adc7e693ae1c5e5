# shellcheck shell=bash
# Sourced by the scripts of this folder: goes to the root of the tree.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# need COMMAND[:PACKAGE]...: installs the Debian packages of commands that are missing.
need() {
  local wanted missing=() as_root=()
  for wanted in "$@"; do
    command -v "${wanted%%:*}" > /dev/null || missing+=("${wanted##*:}")
  done
  if ((${#missing[@]} == 0)); then return; fi
  ((EUID == 0)) || as_root=(sudo)
  "${as_root[@]}" apt-get update -q
  "${as_root[@]}" apt-get install -q -y --no-install-recommends "${missing[@]}"
}

# Runs all tests with these Bazel flags. Their cases are counted from bazel-testlogs/.
run_tests() {
  ./bazelw test "$@" //...
}

# must_find TEXT BAZEL-ARGUMENTS...: where there is a fault, what looks for it says so.
must_find() {
  local text=$1 output
  shift
  output=$(./bazelw "$@" 2>&1) || true
  if [[ $output == *"$text"* ]]; then return; fi
  printf '%s\n' "$output" "Not found, though it is there: $text" >&2
  return 1
}

# Sets `includes` to the flags by which a compiler finds ours and Abseil without Bazel.
find_includes() {
  local base quiet=(--noshow_progress --ui_event_filters=-info)
  ./bazelw fetch "${quiet[@]}" //signals/... //concurrency/...
  base=$(./bazelw info "${quiet[@]}" output_base)
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  ln -s "$PWD" "$scratch/tocsin"
  # shellcheck disable=SC2034
  includes=(-I "$scratch" -isystem "$base/external/com_google_absl")
}

# each NAME FILE... -- COMMAND...: runs the command for each file, as many at a time as
# there are CPUs, and says how many passed.
each() {
  local name=$1 files=()
  shift
  while [[ $1 != -- ]]; do
    files+=("$1")
    shift
  done
  shift
  printf '%s\0' "${files[@]}" | xargs -0 -n 1 -P "$(nproc)" "$@"
  echo "$name: ${#files[@]} files passed"
}
