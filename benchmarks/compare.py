#!/usr/bin/env python3
"""Compares ours with the peers that are installed; see README.md beside it.

  ./bazelw run -c opt //benchmarks:compare -- --rounds=9
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import time

from benchmarks import chart
from benchmarks import contenders as lists
from benchmarks import report

_BUILT_WITH = "//benchmarks:built_with"
_TIMEOUT = 300  # for one case, which takes some seconds; it hangs then


def is_target(word):
    return word.startswith("//")


def split_installed(contenders):
    """Those that can be built here; and the others, each with the packages that it lacks."""
    installed, absent = [], []
    for contender in contenders:
        missing = [p.name for p in contender.needs if not pathlib.Path(p.file).exists()]
        if missing:
            absent.append((contender.name, "apt-get install " + " ".join(missing)))
        else:
            installed.append(contender)
    return installed, list(dict.fromkeys(absent))


class Programs:
    """The contenders' programs, built by Bazel in -c opt whatever this program was built in."""

    def __init__(self, workspace, targets):
        def bazel(command, *arguments, **options):
            words = [str(workspace / "bazelw"), command, "-c", "opt", *arguments]
            return subprocess.run(words, cwd=workspace, check=False, **options)

        self._built = set(targets)
        if bazel("build", "--keep_going", *targets).returncode:
            # That a program is there says nothing: it may be one of an earlier build.
            self._built = {t for t in targets if bazel("build", t).returncode == 0}
        found = bazel("info", "bazel-bin", stdout=subprocess.PIPE, text=True)
        self._bin = pathlib.Path(found.stdout.strip())

    def path(self, target):
        """None if it could not be built."""
        return self._bin / target[2:].replace(":", "/") if target in self._built else None

    def command(self, contender):
        """None if a program of it could not be built."""
        words = [self.path(word) if is_target(word) else word for word in contender.command]
        return None if None in words else [str(word) for word in words]


def cpu_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def describe(workspace, built_with, rounds, quick):
    build = subprocess.run([built_with], check=True, stdout=subprocess.PIPE, text=True)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=workspace, check=False, stdout=subprocess.PIPE, text=True,
    )
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu_name(),
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release().partition("-")[0],
        **json.loads(build.stdout),
        "commit": commit.stdout.strip() or "unknown",
        "rounds": f"{rounds} of --quick, which shows nothing of speed" if quick else rounds,
    }


def stem(about, quick):
    words = f"{about['date']} {about['cpu']} {about['compiler']}" + (" quick" if quick else "")
    return re.sub(r"[^a-z0-9.]+", "-", words.lower()).strip("-")


def list_cases(commands, only):
    """(suite, case) -> contenders that know it, in the order of the list."""
    cases = {}
    for contender, command in commands.items():
        listed = subprocess.run([*command, "--list"], stdout=subprocess.PIPE, text=True, check=True)
        for case in listed.stdout.split():
            if re.search(only, f"{contender.suite}/{case}/{contender.name}"):
                cases.setdefault((contender.suite, case), []).append(contender)
    return cases


def run_case(contender, command, case, quick):
    """What it measured; raises ValueError that says why it could not."""
    options = (["--quick"] if quick else []) + ["--case=" + case]
    try:
        ran = subprocess.run([*command, *options], capture_output=True, text=True, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise ValueError(f"it took longer than {_TIMEOUT} s") from None
    if ran.returncode:
        said = ran.stderr.strip().splitlines() or [""]
        raise ValueError(f"exit status {ran.returncode}, {said[-1]}")
    records = [json.loads(line) for line in ran.stdout.splitlines()]
    if not records:
        raise ValueError("it measured nothing")
    for record in records:
        if record["contender"] != contender.name:
            raise ValueError(f"it calls itself {record['contender']}")
    return records


def measure(cases, commands, rounds, quick, write):
    """Runs all rounds and hands each record to `write`; returns who failed and why, once each.

    In a round a case is run by all of its contenders, one right after the other, for their ratio is
    what counts. Who is first changes from round to round.
    """
    failures = []
    order = [
        (number, suite, case, who)
        for number in range(1, rounds + 1)
        for (suite, case), who in cases.items()
        if case not in lists.EVERY_THIRD_ROUND or number % 3 == 1
    ]
    runs = sum(len(who) for _, _, _, who in order)
    done = 0
    start = time.monotonic()
    for number, suite, case, who in order:
        first = number % len(who)
        for contender in who[first:] + who[:first]:
            name = f"{suite}/{case} of {contender.name}"
            try:
                records = run_case(contender, commands[contender], case, quick)
            except ValueError as error:
                records = []
                result = str(error)
                if (contender, f"{name}: {error}") not in failures:
                    failures.append((contender, f"{name}: {error}"))
            else:
                result = ", ".join(f"{report.number(r['value'])} {r['unit']}" for r in records)
            for record in records:
                write({"suite": suite, "round": number, **record})
            done += 1
            left = (time.monotonic() - start) / done * (runs - done)
            print(f"[round {number} of {rounds}, {left / 60:.0f} min left] {name}: {result}", flush=True)
    return failures


def main():
    parser = argparse.ArgumentParser(prog="compare", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--only", default="", metavar="REGEX", help="what suite/case/contender must match"
    )
    parser.add_argument("--quick", action="store_true", help="measures little, to see that all works")
    args = parser.parse_args()

    workspace = os.environ.get("BUILD_WORKSPACE_DIRECTORY")
    if not workspace:
        sys.exit("Run me by ./bazelw run -c opt //benchmarks:compare")
    workspace = pathlib.Path(workspace)

    installed, absent = split_installed(lists.CONTENDERS)
    for name, remedy in absent:
        print(f"{name} is left out, for it is not installed: {remedy}", flush=True)
    targets = {word for contender in installed for word in contender.command if is_target(word)}
    programs = Programs(workspace, [_BUILT_WITH, *sorted(targets)])
    built_with = programs.path(_BUILT_WITH)
    if not built_with:
        sys.exit(f"{_BUILT_WITH} could not be built")
    commands = {contender: programs.command(contender) for contender in installed}
    failures = [(c, f"{c.suite} of {c.name}: it could not be built") for c in installed if not commands[c]]
    commands = {contender: command for contender, command in commands.items() if command}
    cases = list_cases(commands, args.only)
    if not cases:
        sys.exit(f"No suite/case/contender matches {args.only}")

    about = describe(workspace, built_with, args.rounds, args.quick)
    directory = workspace / "benchmarks" / "results"
    directory.mkdir(exist_ok=True)
    base = stem(about, args.quick)
    raw = directory / f"{base}.jsonl"
    results = report.Results()
    with raw.open("w") as out:

        def write(record):
            results.add(record)
            out.write(json.dumps(record) + "\n")
            out.flush()

        out.write(json.dumps(about) + "\n")
        try:
            failures += measure(cases, commands, args.rounds, args.quick, write)
        except KeyboardInterrupt:
            about["rounds"] = f"{about['rounds']}, interrupted"

    reasons = [reason for _, reason in failures]
    written = [raw, directory / f"{base}.md"]
    page = report.markdown(about, results, lists.CONTENDERS, lists.TARGETS, absent, reasons)
    for drawing in lists.CHARTS:
        picture = chart.draw(drawing, results, lists.CONTENDERS)
        if picture:
            written.append(directory / f"{base}-{drawing.name}.svg")
            written[-1].write_text(picture)
    written[1].write_text(page)
    print()
    measured = {suite for suite, _ in results.units}
    print(report.target_table(results, [t for t in lists.TARGETS if t.suite in measured]))
    for reason in reasons:
        print(reason)
    for path in written:
        print(path.relative_to(workspace))
    # That a peer cannot do what is asked of it is a result.
    return 1 if any(contender.ours for contender, _ in failures) else 0


if __name__ == "__main__":
    sys.exit(main())
