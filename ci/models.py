"""Has SPIN check the models of docs/models/, and refute their mutants.

  python3 ci/models.py [MODEL...]

The comment at the top of a model has these sections:

  Stands for
    FILE: FUNCTION, FUNCTION...     which are still defined there
  Runs
    NAME: FLAG...                   each is searched to the end, and has no fault
  Mutants
    NAME (RUN): what is wrong       -DNAME makes the mutant, in which this run, or the
                                    first, finds a fault

All statements of a model are reached in one of its runs, but for those of a line
that ends with the comment "not reached".
"""

import collections
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import tempfile

MODELS = pathlib.Path("docs/models")
LEAST_MUTANTS = 3
# Of memory for each search.
MEGABYTES = 2048

FAULT = re.compile(r"pan:\d+: ((?:assertion violated|invalid end state).*?) \(at depth")
STATES = re.compile(r"(\d+) states, stored")
NOT_REACHED = "/* not reached */"

Mutant = collections.namedtuple("Mutant", "name run what")
Run = collections.namedtuple("Run", "name flags")
Result = collections.namedtuple("Result", "fault states seconds lines unreached")


class Refused(Exception):
    pass


class Model:
    def __init__(self, path):
        self.path = path
        self.text = path.read_text()
        top = self.text.partition("*/")[0]
        self.stands_for = [
            (file, name)
            for file, names in self.section(top, "Stands for")
            for name in re.split(r",\s*", names)
        ]
        self.runs = [Run(name, flags.split()) for name, flags in self.section(top, "Runs")]
        self.mutants = [
            Mutant(name, self.run_named(run), what)
            for name, run, what in self.section(top, "Mutants", r"(\S+)(?: \((\S+)\))?: (.+)")
        ]

    def run_named(self, name):
        named = [run for run in self.runs if not name or run.name == name]
        if not named:
            raise Refused(f"there is no run {name}")
        return named[0]

    @staticmethod
    def section(top, title, entry=r"(\S+): (.+)"):
        """The entries of a section, each of which may go on indented deeper."""
        found = re.search(rf"^ \* {title}\n((?: \*   .*\n)+)", top, re.MULTILINE)
        if not found:
            raise Refused(f'there is no section "{title}"')
        text = re.sub(r"\n \*     +", " ", "\n" + found[1])
        return re.findall(rf"^ \*   {entry}$", text, re.MULTILINE)


def is_defined(function, source):
    """Whether a function of that name has a body in the source."""
    for call in re.finditer(rf"(?<![\w:~]){re.escape(function)}\(", source):
        depth = 1
        at = call.end()
        while depth and at < len(source):
            depth += {"(": 1, ")": -1}.get(source[at], 0)
            at += 1
        between = r"(?:\s|const\b|override\b|final\b|noexcept\b|[A-Z_]{4,}(?:\([^()]*\))?)*"
        if re.match(between + r"(?:\{|:\s*\w+[({])", source[at:]):
            return True
    return False


def check_text(model):
    for file, function in model.stands_for:
        if not pathlib.Path(file).exists():
            raise Refused(f"there is no {file}, for which it stands")
        if not is_defined(function, pathlib.Path(file).read_text()):
            raise Refused(f"{file} has no {function}(), for which it stands")
    if len(model.mutants) < LEAST_MUTANTS:
        raise Refused(f"it has fewer than {LEAST_MUTANTS} mutants")
    for mutant in model.mutants:
        if not re.search(rf"^#.*\b{mutant.name}\b", model.text, re.MULTILINE):
            raise Refused(f"nothing makes the mutant {mutant.name}")


def search(model, run, mutant=None):
    """Searches all states of the model, or for a fault of a mutant."""
    flags = [*run.flags, *([f"-D{mutant.name}"] if mutant else [])]
    with tempfile.TemporaryDirectory() as scratch:

        def call(*command):
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
            if done.returncode:
                raise Refused(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
            return done.stdout

        call("spin", "-a", *flags, str(model.path.resolve()))
        # What is found in a mutant is found soon.
        level = "-O0" if mutant else "-O2"
        limit = f"-DMEMLIM={MEGABYTES}"
        call("gcc", level, "-w", "-DSAFETY", "-DCOLLAPSE", limit, "-o", "pan", "pan.c")
        lines = statements(call("./pan", "-d", "-d"))
        pan = subprocess.Popen(
            ["./pan", "-m1000000", "-w23"], cwd=scratch, stdout=subprocess.PIPE, text=True
        )
        report = pan.stdout.read()
        # Of this process alone, whatever else runs.
        _, pan.returncode, usage = os.wait4(pan.pid, 0)
    fault = FAULT.search(report)
    states = STATES.search(report)
    if not states or "Search not completed" in report and not fault:
        raise Refused(f"{run.name}: the search did not end:\n{report}")
    if "max search depth too small" in report:
        raise Refused(f"{run.name}: too deep:\n{report}")
    return Result(
        fault[1] if fault else None,
        int(states[1]),
        usage.ru_utime + usage.ru_stime,
        lines,
        unreached(report),
    )


def statements(listing):
    """The line of each (process, state), from `pan -d -d`."""
    found = {}
    process = None
    for line in listing.splitlines():
        if match := re.match(r"(?:proctype|claim) (\S+)|init", line):
            process = match[1] or "init"
        elif match := re.match(r"\s*state\s+(\d+) -.* [^\s:]+:(\d+) =>", line):
            found[process, int(match[1])] = int(match[2])
    return found


def unreached(report):
    found = set()
    process = None
    for line in report.splitlines():
        if match := re.match(r"unreached in (?:proctype |claim )?(\S+)", line):
            process = match[1]
        elif match := re.match(r'\t\S+:\d+, state (\d+), "', line):
            found.add((process, int(match[1])))
    return found


def check_reached(model, results):
    """A line of an inline function is reached if one process reaches it."""
    reached = set()
    missed = set()
    for result in results:
        for state, line in result.lines.items():
            (missed if state in result.unreached else reached).add(line)
    missed -= reached
    lines = model.text.splitlines()
    missed = [line for line in sorted(missed) if not lines[line - 1].rstrip().endswith(NOT_REACHED)]
    if missed:
        told = "\n".join(f"  {line}: {lines[line - 1].strip()}" for line in missed)
        raise Refused(f"no run reaches\n{told}")


def refute(model, mutant):
    """Which fault the run found in the mutant."""
    result = search(model, mutant.run, mutant)
    if not result.fault:
        raise Refused(f"{mutant.run.name} does not refute {mutant.name}: {mutant.what}")
    return f"{mutant.name}: {result.fault} ({mutant.run.name})"


def check(model, pool):
    check_text(model)
    runs = [pool.submit(search, model, run) for run in model.runs]
    mutants = [pool.submit(refute, model, mutant) for mutant in model.mutants]
    results = []
    for run, future in zip(model.runs, runs):
        result = future.result()
        if result.fault:
            raise Refused(f"{run.name}: {result.fault}")
        print(f"  {run.name}: {result.states:,} states, {result.seconds:.1f} s of CPU", flush=True)
        results.append(result)
    check_reached(model, results)
    for future in mutants:
        print(f"  refuted {future.result()}", flush=True)
    print(f"{model.path.stem}: {len(runs)} runs passed, {len(mutants)} mutants refuted", flush=True)


def main(names):
    paths = [MODELS / f"{name}.pml" for name in names] or sorted(MODELS.glob("*.pml"))
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for path in paths:
            try:
                check(Model(path), pool)
            except Refused as refused:
                print(f"{path}: {refused}", file=sys.stderr)
                failed = 1
    print(f"models: {len(paths)} models", "failed" if failed else "passed")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
