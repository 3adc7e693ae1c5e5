"""Prints, of an lcov file, what is covered of each folder, and what is not."""

import collections
import itertools
import pathlib
import sys

LEAST = 95  # percent of the lines of each library

lines = collections.defaultdict(list)  # folder -> covered or not
branches = collections.defaultdict(list)
missed = collections.defaultdict(list)  # file -> numbers of lines

name = ""
for entry in pathlib.Path(sys.argv[1]).read_text().splitlines():
    kind, _, value = entry.partition(":")
    if kind == "SF":
        name = value
    if not name.startswith(("signals/", "concurrency/")):
        continue
    folder = name.rpartition("/")[0]
    if kind == "DA":
        number, count = map(int, value.split(","))
        lines[folder].append(count > 0)
        if count == 0:
            missed[name].append(number)
    elif kind == "BRDA":
        branches[folder].append(int(value.split(",")[-1]) > 0)


def share(covered):
    if not covered:
        return "none"
    return f"{sum(covered):5} of {len(covered):5}  {100 * sum(covered) / len(covered):5.1f} %"


print("lines that no test runs:")
for name in sorted(missed):
    runs = []
    # Lines in a row have the same distance from their place in the list.
    for _, run in itertools.groupby(enumerate(missed[name]), lambda x: x[1] - x[0]):
        run = [number for _, number in run]
        runs.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
    print(f"  {name}: {', '.join(runs)}")

print(f"{'':22} {'lines':24} branches")
for folder in sorted(lines):
    print(f"{folder:22} {share(lines[folder]):24} {share(branches[folder])}")

failed = False
for library in ("signals", "concurrency"):
    covered = [c for f in lines if f.split("/")[0] == library for c in lines[f]]
    percent = 100 * sum(covered) / len(covered)
    print(f"{library} and below: {percent:.1f} % of the lines")
    failed |= percent < LEAST
if failed:
    sys.exit(f"coverage: less than {LEAST} % of the lines")
