"""The libraries that //benchmarks compares ours with.

They come from Debian's packages, and nothing but //benchmarks asks for them.
"""

def _installed_library_impl(ctx):
    if not ctx.path(ctx.attr.header).exists:
        fail("%s is not there: apt-get install %s" % (ctx.attr.header, ctx.attr.package))
    ctx.file("BUILD.bazel", """load("@rules_cc//cc:defs.bzl", "cc_library")

cc_library(
    name = "%s",
    linkopts = %s,
    visibility = ["@tocsin//benchmarks:__subpackages__"],
)
""" % (ctx.name, ctx.attr.linkopts), executable = False)

# The headers lie where the compiler looks anyway.
installed_library = repository_rule(
    implementation = _installed_library_impl,
    attrs = {
        "header": attr.string(mandatory = True),
        "linkopts": attr.string_list(),
        "package": attr.string(mandatory = True),
    },
    local = True,
)

# buildifier: disable=unnamed-macro
def benchmark_peers():
    """Declares the peers' repositories."""
    installed_library(
        name = "boost_asio",
        header = "/usr/include/boost/asio/thread_pool.hpp",
        linkopts = ["-lpthread"],
        package = "libboost-dev",
    )
    installed_library(
        name = "libevent",
        header = "/usr/include/event2/event.h",
        linkopts = ["-levent"],
        package = "libevent-dev",
    )
    installed_library(
        name = "libuv",
        header = "/usr/include/uv.h",
        linkopts = ["-luv"],
        package = "libuv1-dev",
    )
    installed_library(
        name = "moodycamel",
        header = "/usr/include/concurrentqueue/blockingconcurrentqueue.h",
        package = "libconcurrentqueue-dev",
    )
    installed_library(
        name = "onetbb",
        header = "/usr/include/oneapi/tbb/task_group.h",
        linkopts = ["-ltbb"],
        package = "libtbb-dev",
    )
