"""Holds the libraries against the map that docs/design.md begins with.

  python3 ci/floors.py [MAP]

A file is a header with its source. Each is on one of the map's floors, of which
the highest comes first, and includes what is on its own or below; no two need
each other. What is public and what is in internal/ are on floors of their own,
but for the lowest. The comment at the top of each header says which threads may
run what is in it, or that it is a value.
"""

import pathlib
import re
import subprocess
import sys

INCLUDE = re.compile(r'\s*#\s*include\s*["<](.*)[">]')
OURS = re.compile(r"(?:tocsin/)?((?:concurrency|signals)/.+)\.h")
ROW = re.compile(r"\| `([\w/]+)` \| .+ \|")
OF_THREADS = re.compile(r"\b(thread|value|process)", re.IGNORECASE)


def files_of_the_libraries():
    """What each file consists of."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "concurrency", "signals"],
        check=True,
        capture_output=True,
        text=True,
    )
    files = {}
    for path in map(pathlib.Path, listed.stdout.split()):
        if path.suffix in (".h", ".cc") and path.exists():
            files.setdefault(str(path.with_suffix("")), []).append(path)
    return files


def floors_of_the_map(text):
    """The floors with their files, from the highest down."""
    the_map = text.partition("\n## The map\n")[2].partition("\n## ")[0]
    floors = {}
    for line in the_map.splitlines():
        if line.startswith("### "):
            floors[line[4:]] = []
        elif line.startswith("| `"):
            row = ROW.fullmatch(line)
            if not row or not floors:
                raise ValueError(f"not a row of the map: {line}")
            list(floors.values())[-1].append(row[1])
    return floors


def included_by(path):
    for line in path.read_text().splitlines():
        include = INCLUDE.match(line)
        if ours := include and OURS.fullmatch(include[1]):
            yield ours[1]


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


def faults_of_the_map(files, floors):
    on_the_map = [file for floor in floors.values() for file in floor]
    for file in sorted({file for file in on_the_map if on_the_map.count(file) > 1}):
        yield f"{file} is on the map twice"
    for file in sorted(files.keys() - set(on_the_map)):
        yield f"{file} is not on the map"
    for file in sorted(set(on_the_map) - files.keys()):
        yield f"{file} is on the map and nowhere else"
    for floor in list(floors)[:-1]:
        if len({"/internal/" in file for file in floors[floor]}) > 1:
            yield f"on the floor of {floor} some files are in internal/ and some are not"


def faults_of_the_includes(files, floors):
    height = {file: -i for i, floor in enumerate(floors.values()) for file in floor}
    includes = {
        file: {included for path in paths for included in included_by(path)} - {file}
        for file, paths in files.items()
    }
    if not any(includes.values()):
        yield "no file includes another"
    for file, others in sorted(includes.items()):
        for other in sorted(others):
            if other not in files:
                yield f"{file} includes {other}, which is not there"
            elif file in height and other in height and height[other] > height[file]:
                yield f"{file} includes {other}, which is on a floor above"
        others &= files.keys()
    circles = (circle_through(file, includes) for file in sorted(files))
    if circle := next(filter(None, circles), None):  # the first, of which others may be parts
        yield f"a circle: {' -> '.join(circle)}"


def faults_of_the_comments(files):
    for path in (path for paths in files.values() for path in paths if path.suffix == ".h"):
        top = re.match(r"(?://.*\n)*", path.read_text())[0]
        if not OF_THREADS.search(top):
            yield f"{path} does not say at its top which threads may run it"


def main():
    the_map = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "docs/design.md")
    files = files_of_the_libraries()
    floors = floors_of_the_map(the_map.read_text())
    found = [
        *faults_of_the_map(files, floors),
        *faults_of_the_includes(files, floors),
        *faults_of_the_comments(files),
    ]
    for fault in found:
        print(f"floors: {fault}", file=sys.stderr)
    print(f"floors: {len(files)} files on {len(floors)} floors")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
