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
    metrics: tuple


_ASIO = Package("libboost-dev", "/usr/include/boost/asio/signal_set.hpp")
_LIBUV = Package("libuv1-dev", "/usr/include/uv.h")
_LIBEVENT = Package("libevent-dev", "/usr/include/event2/event.h")
_RUST = Package("rustc", "/usr/bin/rustc")
_SIGNAL_HOOK = Package("librust-signal-hook-dev", "/usr/share/doc/librust-signal-hook-dev")
_GO = Package("golang-go", "/usr/bin/go")
_ANYIO = Package("python3-anyio", "/usr/lib/python3/dist-packages/anyio")
_TRIO = Package("python3-trio", "/usr/lib/python3/dist-packages/trio")


def _signals(name, *receiver, needs=(), ours=False, options=()):
    sender = ("//benchmarks/signals:sender", "--contender=" + name)
    return Contender("signals", name, sender + tuple(options) + receiver, tuple(needs), ours)


_OURS = "//benchmarks/signals:tocsin"
_FANOUT = "--fanout=1,4,16,64"

CONTENDERS = [
    _signals("tocsin", _OURS, "thread", ours=True, options=[_FANOUT, "--allocations"]),
    _signals("tocsin on main", _OURS, "main", ours=True, options=["--allocations"]),
    _signals("tocsin blocked", _OURS, "blocked", ours=True, options=[_FANOUT, "--allocations"]),
    _signals("sigwaitinfo", "//benchmarks/signals:sigwaitinfo"),
    _signals("signalfd", "//benchmarks/signals:signalfd"),
    _signals("Boost.Asio", "//benchmarks/signals:asio", needs=[_ASIO]),
    _signals("libuv", "//benchmarks/signals:libuv", needs=[_LIBUV]),
    _signals("libevent", "//benchmarks/signals:libevent", needs=[_LIBEVENT]),
    _signals(
        "signal-hook",
        "//benchmarks/signals:signal_hook",
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
]

_PLACES = ("latency_cross/p50", "latency_same/p50", "latency_free/p50")

TARGETS = []

CHARTS = []
