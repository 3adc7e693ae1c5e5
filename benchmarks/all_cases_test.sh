#!/bin/bash
# all_cases_test.sh PROGRAM [ARGUMENT]...
# Runs each case of a benchmark quickly: it ends, and prints what it measured.
set -euo pipefail

cases=$("$@" --list)
[[ -n $cases ]]
for name in $cases; do
  output=$("$@" --quick "--case=$name")
  echo "$output"
  [[ -n $output ]]
  while read -r line; do
    [[ $line == "{\"case\": \"$name"[\"/]*'"value": '*'}' ]]
  done <<< "$output"
done
