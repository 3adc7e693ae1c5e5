#!/usr/bin/env python3
"""Breaks the library on purpose, and looks whether a test notices.

  tools/mutate.py                        all of tests/mutants/
  tools/mutate.py NAME...                those whose name or file begins so
  tools/mutate.py --commit [REVISION]    simple changes of the lines it changed
  tools/mutate.py --lines FILE[:A-B]...  simple changes of these lines
  tools/mutate.py --check                only whether each text is still there

A mutant of tests/mutants/*.toml is a change of some text of one file, and names
the promise that it breaks and the test that notices:

  [[mutant]]
  name = "queue-push-ignores-close"
  file = "concurrency/blocking_queue.h"
  promise = "a Push() that waits fails once the queue is closed"
  test = "blocking_queue_test:BlockingQueue.CloseEndsAWaitingPush"
  old = '''...'''
  new = '''...'''

`old` is found exactly once in the file; where that is not so any more, the list
is wrong, and nothing runs. With `equivalent` in the place of `test` it breaks no
promise, for the reason given there, and is not run.

Each mutant is made in a copy of the tree, uncommitted changes included, that is
kept under ~/.cache/tocsin-mutate, with a Bazel server of its own; one copy for
each of --jobs.
The test that the list names must pass without the mutant, and fail with it. For
a simple change all tests that depend on the file are run until one fails, those
that are named after it first.

For each it prints whether it was caught, missed or not built; how long the
building and the testing took; and what failed. The status is 1 if one of the
list was not caught, or one of the simple ones was missed.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib

# Under `bazel run`, this file is somewhere else.
ROOT = pathlib.Path(
    os.environ.get("BUILD_WORKSPACE_DIRECTORY") or pathlib.Path(__file__).resolve().parent.parent
)
LIBRARIES = ("concurrency/", "signals/")

# A test that hangs says so and ends itself (tests/main.cc), long before this.
LONGEST_TEST = 300  # seconds

BAZEL_FLAGS = (
    "--noshow_progress",
    "--ui_event_filters=-info,-debug",
    # Of a sandbox for each compiler nobody here has a use.
    "--spawn_strategy=local",
    # What a change leaves unused is no error of the change.
    r"--per_file_copt=^(signals|concurrency|tests)/@-Wno-error",
)


@dataclasses.dataclass
class Mutant:
    name: str
    file: str
    old: str
    new: str
    promise: str = ""
    test: str = ""  # TARGET:CASE or TARGET, in tests/
    equivalent: str = ""
    at: int = -1  # where in the file; else where `old` is found


@dataclasses.dataclass
class Result:
    mutant: Mutant
    verdict: str  # caught, missed, not built
    test: str = ""  # what noticed
    building: float = 0  # seconds
    testing: float = 0


class ListError(Exception):
    pass


# The list. ------------------------------------------------------------------


def read_list(root):
    mutants = []
    for path in sorted((root / "tests/mutants").glob("*.toml")):
        entries = tomllib.loads(path.read_text()).get("mutant", [])
        for entry in entries:
            try:
                mutants.append(Mutant(**entry))
            except TypeError as error:
                raise ListError(f"{path.name}: {entry.get('name')}: {error}") from None
    twice = [n for n, c in collections.Counter(m.name for m in mutants).items() if c > 1]
    if twice:
        raise ListError(f"two mutants are called {', '.join(twice)}")
    return mutants


def check_list(root, mutants):
    """Raises what is wrong with them, of all at once."""
    faults = []
    for m in mutants:
        if not m.equivalent and (not m.test or not m.promise):
            faults.append(f"{m.name}: names no test or no promise")
        path = root / m.file
        if not path.is_file():
            faults.append(f"{m.name}: there is no {m.file}")
            continue
        count = path.read_text().count(m.old)
        if count != 1:
            faults.append(f"{m.name}: its text is found {count} times in {m.file}")
        if m.old == m.new:
            faults.append(f"{m.name}: changes nothing")
    if faults:
        raise ListError("\n".join(faults))


def apply(text, mutant):
    at = mutant.at if mutant.at >= 0 else text.index(mutant.old)
    assert text.startswith(mutant.old, at), mutant.name
    return text[:at] + mutant.new + text[at + len(mutant.old) :]


# Simple changes of lines. ---------------------------------------------------


def statement(line):
    """Whether the line is one statement, whole, that can be left out."""
    s = line.strip()
    if not s.endswith(";") or s.startswith(("return", "}", "//", "#", "using ", "case ")):
        return False
    if s.count("(") != s.count(")") or s.count("{") != s.count("}"):
        return False
    calls = re.match(r"(\(void\))?[\w:.>\-\[\]*&()]+\(.*\)(\.\w+\(.*\))*;$", s)
    stores = re.match(r"[\w:.>\-\[\]*]+ ([-+|&]?=) .*;$", s)
    steps = re.match(r"(\+\+|--)[\w.>\-\[\]]+;$|[\w.>\-\[\]]+(\+\+|--);$", s)
    locks = re.match(r"(internal::)?MutexLock \w+\(.*\);$", s)
    return bool(calls or stores or steps or locks)


def changes_of_line(line):
    """Pairs of what is done and what the line then is."""
    code = line.split("//")[0].rstrip()
    if not code.strip() or code.lstrip().startswith(("#", "*", "ABSL_", "TOCSIN_STEP")):
        return
    if statement(code):
        yield "left out", re.match(r"\s*", code).group() + ";"
    condition = re.match(r"(\s*(?:} else )?(?:if|while) \()(.*)(\)(?: \{| [^{].*;)?)$", code)
    if condition:
        head, inner, tail = condition.groups()
        # The condition ends where its parenthesis does.
        depth, end = 0, len(inner)
        for i, c in enumerate(inner):
            depth += (c == "(") - (c == ")")
            if depth < 0:
                end = i
                break
        if "; " not in inner[:end] and " = " not in inner[:end]:
            yield "negated", f"{head}!({inner[:end]}){inner[end:]}{tail}"
    for pattern, to, what in (
        (r" && ", " || ", "and is or"),
        (r" \|\| ", " && ", "or is and"),
        (r" == ", " != ", "equal is unequal"),
        (r" != ", " == ", "unequal is equal"),
        (r" < ", " <= ", "below is up to"),
        (r" <= ", " < ", "up to is below"),
        (r" > ", " >= ", "above is from"),
        (r" >= ", " > ", "from is above"),
        (r" \+ 1\b", "", "one less"),
        (r" - 1\b", "", "one more"),
        (r"\breturn true;", "return false;", "true is false"),
        (r"\breturn false;", "return true;", "false is true"),
        (r"\btrue\b", "false", "true is false"),
        (r"\bfalse\b", "true", "false is true"),
        (r"\bfetch_add\b", "fetch_sub", "up is down"),
        (r"\bbreak;", ";", "no break"),
        (r"\bcontinue;", ";", "no continue"),
    ):
        for found in re.finditer(pattern, code):
            if "return" in what and "return" not in code:
                continue
            yield what, code[: found.start()] + to + code[found.end() :]


def simple_mutants(file, text, wanted):
    """The simple changes of those lines whose numbers (from 1) are `wanted`."""
    lines = text.split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    seen = set()

    def mutant(what, number, old, new):
        if old == new or (number, new) in seen:
            return None
        seen.add((number, new))
        return Mutant(
            name=f"{file}:{number}: {what}", file=file, old=old, new=new, at=starts[number - 1]
        )

    for number in sorted(wanted):
        if not 1 <= number <= len(lines):
            continue
        line = lines[number - 1]
        for what, changed in changes_of_line(line):
            m = mutant(what, number, line, changed)
            if m:
                yield m
        if number < len(lines):
            after = lines[number]
            if statement(line.split("//")[0].rstrip()) and statement(
                after.split("//")[0].rstrip()
            ):
                m = mutant("swapped with the next", number, f"{line}\n{after}", f"{after}\n{line}")
                if m:
                    yield m


def changed_lines(root, revision):
    """File -> numbers of the lines that the revision, or what came after, brought."""
    diff = subprocess.run(
        ["git", "diff", "-U0", f"{revision}^", "--", *LIBRARIES],
        cwd=root,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    lines = collections.defaultdict(set)
    file = None
    for line in diff.splitlines():
        if line.startswith("+++ "):
            file = line[6:] if line.startswith("+++ b/") else None
        elif line.startswith("@@") and file and file.endswith((".h", ".cc")):
            start, _, count = re.search(r"\+(\d+)(,(\d+))?", line).groups()
            for n in range(int(start), int(start) + int(count or 1)):
                lines[file].add(n)
    return lines


def lines_asked_for(root, arguments):
    lines = collections.defaultdict(set)
    for argument in arguments:
        file, _, part = argument.partition(":")
        count = (root / file).read_text().count("\n") + 1
        first, _, last = part.partition("-")
        first = int(first or 1)
        last = int(last or (first if part else count))
        lines[file] |= set(range(first, last + 1))
    return lines


# Building and running. ------------------------------------------------------


class Tree:
    """A copy of the tree, with a Bazel server of its own."""

    def __init__(self, number):
        mark = hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
        folder = cache / "tocsin-mutate" / f"{mark}-{number}"
        self.path = folder / "tocsin"
        self.scratch = folder / "scratch"
        self.command = ["./bazelw", f"--output_base={folder / 'output'}"]
        self.tests_of = {}

    def sync(self):
        """Copies what has changed. Whether a BUILD file was among that."""
        build_changed = False
        self.path.mkdir(parents=True, exist_ok=True)
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"],
            cwd=ROOT,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout.split("\0")
        files = {f for f in listed if f and (ROOT / f).is_file()}
        if (ROOT / "user.bazelrc").is_file():
            files.add("user.bazelrc")
        for old in self.path.rglob("*"):
            name = str(old.relative_to(self.path))
            if not name.startswith("bazel-") and old.is_file() and name not in files:
                old.unlink()
        for name in files:
            source, target = ROOT / name, self.path / name
            data = source.read_bytes()
            if not target.is_file() or target.read_bytes() != data:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
                shutil.copymode(source, target)
                build_changed |= target.name == "BUILD.bazel"
        return build_changed

    def bazel(self, command, *arguments):
        return subprocess.run(
            [*self.command, command, *arguments],
            cwd=self.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def build(self, targets):
        return self.bazel("build", *BAZEL_FLAGS, *targets)

    def dependent_tests(self, file):
        """The names of the tests that depend on the file."""
        if file not in self.tests_of:
            package, _, rest = file.partition("/")
            query = f'kind("cc_test", rdeps(//tests/..., //{package}:{rest}))'
            result = subprocess.run(
                [*self.command, "query", "--keep_going", "--noshow_progress", query],
                cwd=self.path,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            # 3: a part of Abseil or GoogleTest that nobody needs is not there.
            if result.returncode not in (0, 3):
                raise ListError(f"bazel query of {file}: {result.stderr}")
            self.tests_of[file] = [
                line.partition(":")[2] for line in result.stdout.split() if line
            ]
        return self.tests_of[file]

    def run(self, test, case=""):
        """Nothing if it passes, else what failed."""
        program = self.path / "bazel-bin/tests" / test
        environment = dict(os.environ)
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()
        environment |= {"TEST_TMPDIR": str(self.scratch), "GTEST_FAIL_FAST": "1"}
        if case:
            environment["GTEST_FILTER"] = case
        # To a file: a pipe would stay open as long as something that it left behind.
        output = self.scratch / "output"
        with output.open("w") as file:
            process = subprocess.Popen(
                [program],
                cwd=f"{program}.runfiles/tocsin",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                process.wait(timeout=LONGEST_TEST)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output = output.read_text(errors="replace")
        if case and "[==========] Running 0 tests" in output:
            raise ListError(f"{test} has no case {case}")
        return None if process.returncode == 0 else what_failed(output)


def what_failed(output):
    """The case, from what a test program printed before it failed."""
    # What the watchdog of tests/main.cc says.
    ended = re.search(r"^(.+): (stands still|runs on|dies by)", output, re.M)
    if ended:
        how = "dies" if ended.group(2) == "dies by" else "hangs"
        return f"{ended.group(1)} ({how})"
    failed = re.search(r"^\[  FAILED  \] ([^\s,]+)", output, re.M)
    return failed.group(1) if failed else f"{last_started(output)} (dies)"


def last_started(output):
    started = re.findall(r"^\[ RUN      \] (\S+)", output, re.M)
    return started[-1] if started else "before the first case"


# One that must have the machine to itself.
alone = threading.Lock()


def order_of_tests(file, tests):
    """Those named after the file first, the long ones last."""
    stem = pathlib.Path(file).stem
    words = set(stem.split("_"))

    def key(test):
        shared = len(words & set(test.removesuffix("_test").split("_")))
        slow = test in ("storm_test", "examples_test", "http_server_test", "debugger_test")
        return (slow, not test.startswith(stem), -shared, test)

    return sorted(tests, key=key)


class Stopwatch:
    def __init__(self):
        self.last = time.monotonic()

    def lap(self):
        before, self.last = self.last, time.monotonic()
        return self.last - before


def run_case(tree, test):
    """What failed of TARGET or TARGET:CASE, which has been built; nothing if it passes."""
    target, _, case = test.partition(":")
    with alone if target == "storm_test" else contextlib.nullcontext():
        failed = tree.run(target, case)
    return f"{target}:{failed}" if failed else None


def try_mutant(tree, mutant):
    path = tree.path / mutant.file
    original = path.read_text()
    result = Result(mutant, "missed")

    def fails(tests):
        """Whether one of them does, or they cannot be built; then the result tells."""
        clock = Stopwatch()
        built = tree.build([f"//tests:{test.partition(':')[0]}" for test in tests])
        result.building += clock.lap()
        if built.returncode != 0:
            result.verdict = "not built"
            return True
        for test in tests:
            result.test = run_case(tree, test) or ""
            if result.test:
                break
        result.testing += clock.lap()
        if result.test:
            result.verdict = "caught"
        return bool(result.test)

    try:
        path.write_text(apply(original, mutant))
        if mutant.test:
            fails([mutant.test])
            return result
        tests = order_of_tests(mutant.file, tree.dependent_tests(mutant.file))
        # In parts, so that a change of a header needs few programs as a rule.
        for part in (tests[:3], tests[3:12], tests[12:]):
            if part and fails(part):
                break
        return result
    finally:
        path.write_text(original)


def prepare(trees, mutants):
    """Makes the copies, builds them, and sees that what is to fail passes."""
    tests = sorted({m.test for m in mutants if m.test})
    targets = sorted({f"//tests:{test.partition(':')[0]}" for test in tests})
    if any(not m.test for m in mutants):
        targets = ["//tests:all"]

    def build(tree):
        if tree.sync():
            # Without a sandbox, what is left of a header that has gone to another
            # target would still be found.
            tree.bazel("clean")
        built = tree.build(targets)
        if built.returncode != 0:
            raise ListError(f"without any mutant it does not build:\n{built.stdout}")

    for tree in trees:  # one after the other, so that the first fills the disk cache
        build(tree)
    failed = [failed for test in tests if (failed := run_case(trees[0], test))]
    if failed:
        raise ListError("these fail without any mutant:\n" + "\n".join(failed))


def report(result):
    m = result.mutant
    line = f"{result.verdict:9} {result.building:5.1f} s {result.testing:5.1f} s  {m.name}"
    if result.test:
        line += f"\n{'':28}{result.test}"
    elif m.test:
        line += f"\n{'':28}not {m.test}"
    print(line, flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--commit", nargs="?", const="HEAD")
    parser.add_argument("--lines", nargs="+")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    try:
        if arguments.commit or arguments.lines:
            lines = (
                changed_lines(ROOT, arguments.commit)
                if arguments.commit
                else lines_asked_for(ROOT, arguments.lines)
            )
            mutants = [
                m
                for file, numbers in lines.items()
                for m in simple_mutants(file, (ROOT / file).read_text(), numbers)
            ]
        else:
            mutants = read_list(ROOT)
            check_list(ROOT, mutants)
            if arguments.check:
                print(f"{len(mutants)} mutants, each found once")
                return 0
            if arguments.names:
                mutants = [
                    m
                    for m in mutants
                    if any(m.name.startswith(n) or m.file.startswith(n) for n in arguments.names)
                ]
        equivalent = [m for m in mutants if m.equivalent]
        mutants = [m for m in mutants if not m.equivalent]
        if not mutants:
            raise ListError("no mutant is meant by that")
        print(f"{len(mutants)} mutants: building, testing", flush=True)
        trees = [Tree(number) for number in range(min(arguments.jobs, len(mutants)))]
        free = queue.SimpleQueue()

        def work(mutant):
            tree = free.get()
            try:
                result = try_mutant(tree, mutant)
                report(result)
                return result
            finally:
                free.put(tree)

        try:
            prepare(trees, mutants)
            for tree in trees:
                free.put(tree)
            with concurrent.futures.ThreadPoolExecutor(len(trees)) as pool:
                results = list(pool.map(work, mutants))
        finally:
            for tree in trees:
                tree.bazel("shutdown")
    except ListError as error:
        print(f"mutate: {error}", file=sys.stderr)
        return 2
    counts = collections.Counter(r.verdict for r in results)
    slowest = max((r.testing for r in results if r.verdict == "caught"), default=0)
    print(
        f"{counts['caught']} caught, {counts['missed']} missed, "
        f"{counts['not built']} not built, {len(equivalent)} equivalent; "
        f"the slowest test took {slowest:.1f} s to notice"
    )
    of_the_list = any(r.mutant.test for r in results)
    return 1 if counts["missed"] or (of_the_list and counts["not built"]) else 0


if __name__ == "__main__":
    sys.exit(main())
