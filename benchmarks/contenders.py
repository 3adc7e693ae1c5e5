"""Who is compared with whom, on what, and what we want to reach.

A contender's program prints its cases with --list. With --case=NAME it runs one of them and
prints a line of JSON for each thing that it measured: {"case": "NAME" or "NAME/what",
"contender": ..., "unit": ..., "value": ...}. Lower is better unless the unit ends in "/s".
--quick before --case makes it measure little, to see that it works.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Package:
    """A package of Debian, and a file by which one sees that it is installed."""

    name: str
    file: str


@dataclasses.dataclass(frozen=True)
class Contender:
    suite: str
    name: str  # as its program prints it
    command: tuple  # what begins with // is a Bazel target, and stands for its program
    needs: tuple = ()
    ours: bool = False


@dataclasses.dataclass(frozen=True)
class Target:
    """What the median of the rounds is at most: a value, or a ratio to the best of `against`.

    A ratio is ours to theirs, of times; of rates ("/s") it is that of the time for each thing.
    """

    suite: str
    text: str
    ours: str
    metrics: tuple
    limit: float
    against: tuple = ()
    every_round: bool = False  # it is not the median that counts, but the worst round


@dataclasses.dataclass(frozen=True)
class Chart:
    """Our ratio to each of the others, drawn as bars."""

    name: str
    title: str
    suite: str
    ours: str
    metrics: dict  # metric -> what the chart calls it


_ASIO = Package("libboost-dev", "/usr/include/boost/asio/signal_set.hpp")
_LIBUV = Package("libuv1-dev", "/usr/include/uv.h")
_LIBEVENT = Package("libevent-dev", "/usr/include/event2/event.h")
_TBB = Package("libtbb-dev", "/usr/include/oneapi/tbb/task_group.h")
_MOODYCAMEL = Package(
    "libconcurrentqueue-dev", "/usr/include/concurrentqueue/blockingconcurrentqueue.h"
)
_RUST = Package("rustc", "/usr/bin/rustc")
_SIGNAL_HOOK = Package("librust-signal-hook-dev", "/usr/share/doc/librust-signal-hook-dev")
_GO = Package("golang-go", "/usr/bin/go")
_ANYIO = Package("python3-anyio", "/usr/lib/python3/dist-packages/anyio")
_TRIO = Package("python3-trio", "/usr/lib/python3/dist-packages/trio")


def _signals(name, *receiver, needs=(), ours=False, options=()):
    sender = ("//benchmarks/signals:sender", "--contender=" + name)
    return Contender("signals", name, sender + tuple(options) + receiver, tuple(needs), ours)


def _of(suite, name, program, needs=(), ours=False):
    return Contender(suite, name, (f"//benchmarks/{suite}:{program}",), tuple(needs), ours)


def _elsewhere(name, program, needs):
    """A second thread receives, while the main one sleeps."""
    return _signals(
        name + " elsewhere", program, "elsewhere", needs=needs, options=["--latency-only"]
    )


_OURS = "//benchmarks/signals:tocsin"
_FANOUT = "--fanout=1,4,16,64"
_CROWD = "--crowd"
_OUR_OPTIONS = ["--allocations", _CROWD]

CONTENDERS = [
    _signals("tocsin", _OURS, "thread", ours=True, options=[_FANOUT, *_OUR_OPTIONS]),
    _signals("tocsin on main", _OURS, "main", ours=True, options=_OUR_OPTIONS),
    _signals("tocsin blocked", _OURS, "blocked", ours=True, options=[_FANOUT, *_OUR_OPTIONS]),
    _signals("sigwaitinfo", "//benchmarks/signals:sigwaitinfo"),
    _signals("signalfd", "//benchmarks/signals:signalfd"),
    _signals("Boost.Asio", "//benchmarks/signals:asio", "main", needs=[_ASIO], options=[_CROWD]),
    _signals("libuv", "//benchmarks/signals:libuv", "main", needs=[_LIBUV], options=[_CROWD]),
    _signals("libevent", "//benchmarks/signals:libevent", "main", needs=[_LIBEVENT], options=[_CROWD]),
    _elsewhere("Boost.Asio", "//benchmarks/signals:asio", needs=[_ASIO]),
    _elsewhere("libuv", "//benchmarks/signals:libuv", needs=[_LIBUV]),
    _elsewhere("libevent", "//benchmarks/signals:libevent", needs=[_LIBEVENT]),
    _elsewhere("signal-hook", "//benchmarks/signals:signal_hook", needs=[_RUST, _SIGNAL_HOOK]),
    _signals(
        "signal-hook",
        "//benchmarks/signals:signal_hook",
        "main",
        needs=[_RUST, _SIGNAL_HOOK],
        options=[_FANOUT],
    ),
    _signals(
        "Go os/signal",
        "//benchmarks/signals:os_signal_receiver",
        needs=[_GO],
        options=[_FANOUT],
    ),
    _signals("AnyIO on asyncio", "//benchmarks/signals:anyio", "asyncio", needs=[_ANYIO]),
    _signals("AnyIO on Trio", "//benchmarks/signals:anyio", "trio", needs=[_ANYIO, _TRIO]),
    _of("tasks", "tocsin", "tocsin", ours=True),
    _of("tasks", "oneTBB", "onetbb", needs=[_TBB]),
    _of("tasks", "OpenMP", "openmp"),
    _of("tasks", "Boost.Asio", "asio", needs=[_ASIO]),
    _of("tasks", "absl::Mutex pool", "mutex_pool"),
    _of("tasks", "std::async", "std_async"),
    _of("queues", "tocsin", "tocsin", ours=True),
    _of("queues", "absl::Mutex queue", "absl_mutex"),
    _of("queues", "std::mutex queue", "std_mutex"),
    _of("queues", "moodycamel", "moodycamel", needs=[_MOODYCAMEL]),
    _of("queues", "oneTBB", "onetbb", needs=[_TBB]),
]

# What these measure hardly differs from run to run, and some take long.
EVERY_THIRD_ROUND = ("idle", "memory", "allocations", "growth")

_CROSS, _SAME, _FREE = "latency_cross/p50", "latency_same/p50", "latency_free/p50"
_PLACES = (_CROSS, _SAME, _FREE)
_LOOPS = ("Boost.Asio", "libuv", "signal-hook")

TARGETS = [
    Target(
        "signals",
        "Blocked, one receiver: to sigwaitinfo",
        "tocsin blocked",
        _PLACES,
        1.10,
        against=("sigwaitinfo",),
    ),
    Target(
        "signals",
        "Blocked, one receiver: to the best of Asio, libuv, signal-hook and Go",
        "tocsin blocked",
        _PLACES,
        0.6,
        against=(*_LOOPS, "Go os/signal"),
    ),
    Target(
        "signals",
        "Default, main asleep in its receiver: to the best of Asio, libuv and signal-hook",
        "tocsin on main",
        _PLACES,
        0.9,
        against=_LOOPS,
    ),
    Target(
        "signals",
        "Default, main asleep, received elsewhere: to the best of Asio, libuv and signal-hook, too",
        "tocsin",
        _PLACES,
        0.9,
        against=tuple(name + " elsewhere" for name in _LOOPS),
    ),
    *(
        target
        for ours in ("tocsin blocked", "tocsin")
        for target in (
            Target(
                "signals",
                f"{ours}: 16 receivers, the last one woken, to 16 iterators of signal-hook",
                ours,
                ("fanout_16/p50",),
                0.45,
                against=("signal-hook",),
            ),
            Target(
                "signals",
                f"{ours}: queued signals lost, in any round",
                ours,
                ("queued/lost",),
                0,
                every_round=True,
            ),
            Target(
                "signals",
                f"{ours}: time for a queued signal, to signalfd (0.8 x its rate)",
                ours,
                ("queued/rate",),
                1.25,
                against=("signalfd",),
            ),
            Target(
                "signals",
                f"{ours}: SIGTERM in a storm of SIGUSR1",
                ours,
                ("storm/p99",),
                1000,
            ),
        )
    ),
    *(
        target
        for ours in ("tocsin blocked", "tocsin on main")
        for target in (
            Target("signals", f"{ours}: open and close", ours, ("open_close",), 30),
            Target(
                "signals",
                f"{ours}: open and close, with 999 others open",
                ours,
                ("open_close_1000th",),
                30,
            ),
            Target(
                "signals",
                f"{ours}: allocations for 1,000 signals, in any round",
                ours,
                ("allocations",),
                0,
                every_round=True,
            ),
            Target(
                "signals",
                f"{ours}: context switches in 5 idle seconds, in any round",
                ours,
                ("idle/switches",),
                0,
                every_round=True,
            ),
            Target(
                "signals",
                f"{ours}: threads, of which one is the program's own",
                ours,
                ("idle/threads",),
                2,
            ),
        )
    ),
    *(
        Target("tasks", text, "tocsin", metrics, limit, against=("oneTBB",))
        for text, metrics, limit in (
            ("A million tasks of one thread: to oneTBB", ("flat",), 0.2),
            ("One task and wait: to oneTBB", ("one_task",), 0.6),
            ("Groups in groups: to oneTBB", ("fib",), 0.4),
            ("Tasks that spawn: to oneTBB", ("tree",), 0.2),
            ("Fan of 8: to oneTBB", ("fan_8",), 0.87),
            ("Cancel of 100,000 tasks that wait to start: to oneTBB", ("cancel_queued",), 0.3),
            ("Cancel of 8 blocked tasks: to oneTBB", ("cancel_blocked",), 0.5),
        )
    ),
    *(
        Target("tasks", text, "tocsin", metrics, limit)
        for text, metrics, limit in (
            ("Durations that differ much, to the ideal", ("skewed",), 1.05),
            ("Cancel of 1,000 sleepers", ("cancel_sleepers",), 20),
            ("Memory of a task that waits to start", ("memory",), 80),
            ("Allocations of a task, once warm", ("allocations",), 0.001),
            ("Growth over 10 million tasks", ("growth",), 1 << 20),
            ("CPU time of an idle pool in 5 s", ("idle",), 1),
        )
    ),
    Target(
        "queues",
        "One, two and four producers and as many consumers: to the best of the others",
        "tocsin",
        ("queue_1p1c", "queue_2p2c", "queue_4p4c"),
        0.5,
        against=("absl::Mutex queue", "std::mutex queue", "moodycamel", "oneTBB"),
    ),
]

_LATENCY = {_CROSS: "different cores", _SAME: "one core", _FREE: "not pinned"}
_MORE = {
    "queued/rate": "queued real-time signals",
    "storm/p99": "SIGTERM in a storm, 99th percentile",
    "fanout_16/p50": "16 receivers, the last one woken",
    "open_close": "open and close a receiver",
}

CHARTS = [
    Chart(
        "signals-latency-blocked",
        "Latency of a signal, under a ScopedSignalBlock (median)",
        "signals",
        "tocsin blocked",
        _LATENCY,
    ),
    Chart(
        "signals-latency",
        "Latency of a signal, main thread asleep (median)",
        "signals",
        "tocsin",
        _LATENCY,
    ),
    Chart(
        "signals-more-blocked",
        "More about signals, under a ScopedSignalBlock",
        "signals",
        "tocsin blocked",
        _MORE,
    ),
    Chart("signals-more", "More about signals, main thread asleep", "signals", "tocsin", _MORE),
    Chart(
        "tasks",
        "Task groups (time)",
        "tasks",
        "tocsin",
        {
            "flat": "a million tasks of one thread",
            "one_task": "one task and wait",
            "fib": "groups in groups",
            "tree": "tasks that spawn",
            "fan_8": "8 tasks of 1 us and wait",
            "cancel_queued": "cancel of 100,000 waiting tasks",
            "cancel_blocked": "cancel of 8 blocked tasks",
        },
    ),
    Chart(
        "queues",
        "Queues between threads (time per item)",
        "queues",
        "tocsin",
        {
            "queue_1p1c": "1 producer, 1 consumer",
            "queue_2p2c": "2 producers, 2 consumers",
            "queue_4p4c": "4 producers, 4 consumers",
        },
    ),
]
