#!/usr/bin/env python3
"""Holds the libraries against the map that docs/design.md begins with.

A file is a header with its source. Each is on one of the map's floors, of which
the highest comes first, and includes what is on its own or below; no two need
each other. Each header begins with the sentence that says what the file is.
"""

import pathlib
import re
import subprocess
import sys

INCLUDE = re.compile(r'#include "tocsin/((?:concurrency|signals)/.+)\.h"')
ROW = re.compile(r"\| `((?:concurrency|signals)/[\w/]+)` \| .+ \|")


def files_of_the_libraries():
    """What each file consists of."""
    listed = subprocess.run(
        ["git", "ls-files", "concurrency/*.h", "concurrency/*.cc", "signals/*.h", "signals/*.cc"],
        check=True,
        capture_output=True,
        text=True,
    )
    files = {}
    for path in map(pathlib.Path, listed.stdout.split()):
        files.setdefault(str(path.with_suffix("")), []).append(path)
    return files


def floors_of_the_map(text):
    """On which floor each file is, the lowest being 0; and what the map has twice."""
    the_map = text.partition("\n## The map\n")[2].partition("\n## ")[0]
    names, floors, twice = [], {}, []
    for line in the_map.splitlines():
        if line.startswith("### "):
            names.append(line[4:])
        elif row := ROW.fullmatch(line):
            if row[1] in floors:
                twice.append(row[1])
            floors[row[1]] = len(names)
    return names, {file: len(names) - floor for file, floor in floors.items()}, twice


def circle_through(start, includes):
    """A way along the includes from `start` back to it, or nothing."""
    came_from, ahead = {}, [start]
    while ahead:
        file = ahead.pop()
        for included in sorted(includes[file]):
            if included == start:
                way = [start, file]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return way[::-1]
            if included not in came_from:
                came_from[included] = file
                ahead.append(included)
    return None


def faults(files, names, floors, twice):
    for file in twice:
        yield f"{file} is on the map twice"
    for file in sorted(files.keys() - floors.keys()):
        yield f"{file} is not on the map"
    for file in sorted(floors.keys() - files.keys()):
        yield f"{file} is on the map and nowhere else"
    includes = {}
    for file, paths in files.items():
        text = "".join(path.read_text() for path in paths)
        includes[file] = {
            included for included in INCLUDE.findall(text) if included in files
        } - {file}
        for path in paths:
            if path.suffix == ".h" and not path.read_text().startswith("// "):
                yield f"{path} does not begin with what it is"
    for file in sorted(files.keys() & floors.keys()):
        for included in sorted(includes[file] & floors.keys()):
            if floors[included] > floors[file]:
                floor = names[len(names) - floors[included] - 1]
                yield f"{file} includes {included}, which is above, on the floor of {floor}"
    circles = (circle_through(file, includes) for file in sorted(files))
    if circle := next(filter(None, circles), None):  # the first, of which others may be parts
        yield f"a circle: {' -> '.join(circle)}"


def main():
    files = files_of_the_libraries()
    names, floors, twice = floors_of_the_map(pathlib.Path("docs/design.md").read_text())
    found = list(faults(files, names, floors, twice))
    for fault in found:
        print(f"floors: {fault}", file=sys.stderr)
    print(f"floors: {len(files)} files on {len(names)} floors")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
