"""Counts the clean-ups that a program loses to what stops it.

  python3 ci/senders.py PROGRAM RUNS [SENDER...]

PROGRAM is tests/stop_subject. It is stopped by each sender, or by those that are
named, RUNS times alone and as often with a child that it stops itself.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import os
import pathlib
import select
import signal
import subprocess
import sys
import tempfile
import time

AT_A_TIME = 2 * os.cpu_count()  # more, and 0.2 s do not suffice for a start
PATIENCE = 60  # seconds in which something must be printed


@dataclasses.dataclass
class Subject:
    name: str
    argv: list[str]
    processes: int

    def is_ready(self, output):
        return output.count(b"ready") == self.processes

    def has_cleaned_up(self, output):
        return output.count(b"cleaned up") == self.processes


@contextlib.contextmanager
def started(argv, **options):
    process = subprocess.Popen(argv, **options)
    try:
        yield process
    finally:
        process.kill()  # if it hangs
        process.wait()


def parts(fd):
    """What can be read from `fd`, as it comes."""
    while True:
        if not select.select([fd], [], [], PATIENCE)[0]:
            raise TimeoutError(f"nothing is printed for {PATIENCE} s")
        try:
            part = os.read(fd, 4096)
        except OSError:  # of a terminal that nobody has open
            return
        if not part:
            return
        yield part


def output_when_stopped(subject, fd, stop):
    """All that it prints to `fd`. Calls `stop` when it is ready."""
    output, coming = b"", parts(fd)
    while not subject.is_ready(output):
        part = next(coming, b"")
        if not part:
            raise RuntimeError(f"it ends before it is stopped: {output}")
        output += part
    stop()
    return output + b"".join(coming)


def in_parallel(run):
    """A sender of a function that stops one subject."""

    def runs_of(subject, runs):
        with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
            return list(pool.map(run, [subject] * runs))

    return runs_of


piped = functools.partial(
    started, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
)


def by_timeout(*options):
    @in_parallel
    def run(subject):
        # By time: it may come before the subject is ready.
        with piped(["timeout", *options, "0.2", *subject.argv]) as timeout:
            return b"".join(parts(timeout.stdout.fileno()))

    return run


@in_parallel
def by_dumb_init(subject):
    with piped(["dumb-init", *subject.argv]) as init:
        return output_when_stopped(subject, init.stdout.fileno(), init.terminate)


@in_parallel
def by_script(subject):
    with piped(subject.argv, start_new_session=True) as leader:
        script = ["bash", "-c", 'kill -- -"$0"; kill -- -"$0"', str(leader.pid)]
        return output_when_stopped(
            subject, leader.stdout.fileno(), lambda: subprocess.run(script, check=True)
        )


def by_terminal(*command):
    @in_parallel
    def run(subject):
        keyboard, terminal = os.openpty()
        screen = dict.fromkeys(["stdin", "stdout", "stderr"], terminal)
        argv = ["setsid", "--ctty", *command, *subject.argv]
        with open(keyboard, "wb", buffering=0), started(argv, **screen):
            os.close(terminal)
            return output_when_stopped(
                subject, keyboard, lambda: os.write(keyboard, b"\x03")
            )

    return run


def by_supervisord(subject, runs):
    outputs = []
    while len(outputs) < runs:
        outputs += by_one_supervisord(subject, min(runs - len(outputs), 50))
    return outputs


def by_one_supervisord(subject, runs):
    with tempfile.TemporaryDirectory() as folder:
        configuration = pathlib.Path(folder, "supervisord.conf")
        configuration.write_text(
            f"""
[supervisord]
nodaemon = true
logfile = /dev/null
logfile_maxbytes = 0
pidfile = {folder}/pid
[program:subject]
command = {" ".join(subject.argv)}
process_name = %(process_num)d
numprocs = {runs}
startsecs = 0
autorestart = false
stopasgroup = true
stdout_logfile = {folder}/output.%(process_num)d
redirect_stderr = true
"""
        )
        files = [pathlib.Path(folder, f"output.{i}") for i in range(runs)]
        with started(
            ["supervisord", "-c", configuration], stdout=subprocess.DEVNULL
        ) as supervisord:
            give_up = time.monotonic() + PATIENCE
            while not all(f.exists() and subject.is_ready(f.read_bytes()) for f in files):
                if supervisord.poll() is not None or time.monotonic() > give_up:
                    raise RuntimeError("supervisord does not start them")
                time.sleep(0.05)
            supervisord.terminate()
            supervisord.wait(PATIENCE)
        return [file.read_bytes() for file in files]


SENDERS = {
    "timeout": by_timeout(),
    "timeout-int": by_timeout("-s", "INT"),
    "dumb-init": by_dumb_init,
    "supervisord": by_supervisord,
    "script": by_script,
    "terminal": by_terminal(),
    # Gets Ctrl+C as well, and passes it on.
    "terminal-timeout": by_terminal("timeout", "--foreground", "1m"),
}


def main():
    # A shell's background job ignores it, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    program, runs = os.path.abspath(sys.argv[1]), int(sys.argv[2])
    subjects = [
        Subject("alone", [program], 1),
        Subject("with a child", [program, "parent"], 2),
    ]
    failed = False
    for name in sys.argv[3:] or SENDERS:
        for subject in subjects:
            outputs = SENDERS[name](subject, runs)
            counted = [output for output in outputs if subject.is_ready(output)]
            lost = [output for output in counted if not subject.has_cleaned_up(output)]
            print(
                f"senders: {name}, {subject.name}: {len(lost)} lost in {len(counted)} runs"
                f" and {runs - len(counted)} that were not ready in time",
                flush=True,
            )
            if lost:
                print(lost[0].decode(errors="replace"), file=sys.stderr)
            failed |= bool(lost) or not counted
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
