import unittest

from tools import compile_commands


def entries(*actions):
    return compile_commands.commands(actions, "/home/ada/tocsin", "/cache/bazel")


def compiles(source, *flags):
    return {"arguments": ["clang", *flags, "-c", source, "-o", source + ".o"]}


class CompileCommandsTest(unittest.TestCase):
    def test_has_each_of_our_sources_once_and_none_of_others(self):
        sources = entries(
            compiles("external/com_google_absl/absl/status/status.cc"),
            compiles("signals/run.cc", "-DONE"),
            compiles("signals/run.cc", "-DONE", "-fPIC"),
            compiles("tests/run_test.cc"),
        )
        self.assertEqual([source["file"] for source in sources], ["signals/run.cc", "tests/run_test.cc"])

    def test_finds_from_the_workspace_what_bazel_compiles_with(self):
        (source,) = entries(compiles("signals/run.cc", "-iquote", ".", "-iquote", "external/com_google_absl"))
        self.assertEqual(source["directory"], "/home/ada/tocsin")
        self.assertEqual(
            source["arguments"],
            ["clang", "-iquote", ".", "-iquote", "/cache/bazel/external/com_google_absl"]
            + ["-c", "signals/run.cc", "-o", "signals/run.cc.o"],
        )


if __name__ == "__main__":
    unittest.main()
