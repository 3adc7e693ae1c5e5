"""What compare.py makes of figures, shown on figures that are made up."""

import os
import pathlib
import sys
import unittest
import xml.etree.ElementTree

from benchmarks import chart
from benchmarks import compare
from benchmarks import contenders as lists
from benchmarks import report


def results(unit, values, metric="wait", suite="s"):
    """`values`: contender -> its values, a round after the other; None: it failed."""
    return report.Results(
        {"suite": suite, "case": metric, "contender": name, "unit": unit, "round": r, "value": value}
        for name, rounds in values.items()
        for r, value in enumerate(rounds)
        if value is not None
    )


def contender(name, *command, ours=False, needs=()):
    return lists.Contender("s", name, command, tuple(needs), ours)


class RatioTest(unittest.TestCase):
    def test_compares_within_a_round(self):
        # The medians are equal, yet ours took half as long in each round but one.
        spread = results("us", {"ours": [1, 10, 100], "theirs": [2, 20, 10]}).ratio(
            "s", "wait", "ours", ["theirs"]
        )
        self.assertEqual(spread, report.Spread(median=0.5, low=0.5, high=10))

    def test_compares_with_the_best_of_each_round(self):
        spread = results("us", {"ours": [4, 4], "a": [8, 2], "b": [1, 16]}).ratio(
            "s", "wait", "ours", ["a", "b"]
        )
        self.assertEqual(spread, report.Spread(median=3, low=2, high=4))

    def test_is_of_times_where_rates_are_measured(self):
        spread = results("items/s", {"ours": [200], "theirs": [100]}).ratio(
            "s", "wait", "ours", ["theirs"]
        )
        self.assertEqual(spread.median, 0.5)

    def test_leaves_out_rounds_that_one_of_them_lacks(self):
        spread = results("us", {"ours": [1, None, 3], "theirs": [None, 5, 1]}).ratio(
            "s", "wait", "ours", ["theirs"]
        )
        self.assertEqual(spread, report.Spread(median=3, low=3, high=3))

    def test_is_nothing_where_there_is_nothing_to_compare(self):
        measured = results("signals", {"ours": [0], "theirs": [5], "none": [0]})
        self.assertIsNone(measured.ratio("s", "wait", "ours", ["theirs"]))
        self.assertIsNone(measured.ratio("s", "wait", "theirs", ["none"]))
        self.assertIsNone(measured.ratio("s", "wait", "ours", ["absent"]))
        self.assertIsNone(measured.ratio("s", "other", "ours", ["theirs"]))


class TargetTest(unittest.TestCase):
    def verdict(self, measured, **target):
        target = lists.Target("s", "quick", "ours", ("wait",), **target)
        return list(report.judge(measured, target))

    def test_is_met_by_the_median_of_the_ratios(self):
        measured = results("us", {"ours": [5, 6, 20], "theirs": [10, 10, 10]})
        for limit, met in ((0.6, True), (0.59, False)):
            [(_, reached, is_met, _)] = self.verdict(measured, limit=limit, against=("theirs",))
            self.assertEqual(reached.median, 0.6)
            self.assertEqual(is_met, met)

    def test_is_met_by_the_median_of_the_values_without_peers(self):
        measured = results("us", {"ours": [1, 30, 99]})
        self.assertTrue(self.verdict(measured, limit=30)[0][2])
        self.assertFalse(self.verdict(measured, limit=29)[0][2])

    def test_is_missed_in_one_round_if_every_round_counts(self):
        measured = results("signals", {"ours": [0, 0, 1]})
        self.assertTrue(self.verdict(measured, limit=0)[0][2])
        self.assertFalse(self.verdict(measured, limit=0, every_round=True)[0][2])

    def test_table_says_what_was_not_measured_and_who_was_absent(self):
        target = lists.Target("s", "quick", "ours", ("wait", "other"), 0.5, against=("a", "b"))
        lines = report.target_table(results("us", {"ours": [1], "a": [4]}), [target]).splitlines()
        self.assertEqual(
            lines[2:],
            [
                "| quick | wait | 0.500 x | 0.250 (0.250 to 0.250) | met, without b |",
                "| quick | other | 0.500 x |  | not measured, without a, b |",
            ],
        )

    def test_names_contenders_that_exist(self):
        names = {(c.suite, c.name) for c in lists.CONTENDERS}
        self.assertEqual(len(names), len(lists.CONTENDERS))
        ours = {(c.suite, c.name) for c in lists.CONTENDERS if c.ours}
        for target in lists.TARGETS:
            self.assertIn((target.suite, target.ours), ours)
            for name in target.against:
                self.assertIn((target.suite, name), names)
        for drawing in lists.CHARTS:
            self.assertIn((drawing.suite, drawing.ours), ours)


class PageTest(unittest.TestCase):
    ABOUT = {"date": "2026-01-02", "cpu": "AMD EPYC(TM) 9", "compiler": "gcc 12.2.0"}

    def test_has_values_and_our_ratios_in_the_order_of_the_list(self):
        listed = [contender("ours", ours=True), contender("theirs")]
        measured = results("us", {"theirs": [1000, 3000], "ours": [1, 3]})
        page = report.markdown(self.ABOUT, measured, listed, [], [("x", "apt-get")], ["s/y of z: died"])
        self.assertIn("| ours | 2.00 | 1.00 to 3.00 |  |\n", page)
        self.assertIn("| theirs | 2,000 | 1,000 to 3,000 | 0.00100 (0.00100 to 0.00100) |\n", page)
        self.assertLess(page.index("| ours |"), page.index("| theirs |"))
        self.assertIn("- x: apt-get\n", page)
        self.assertIn("- s/y of z: died\n", page)

    def test_file_is_named_by_date_cpu_and_compiler(self):
        self.assertEqual(compare.stem(self.ABOUT, False), "2026-01-02-amd-epyc-tm-9-gcc-12.2.0")
        self.assertEqual(compare.stem(self.ABOUT, True), "2026-01-02-amd-epyc-tm-9-gcc-12.2.0-quick")


class ChartTest(unittest.TestCase):
    DRAWING = lists.Chart("c", "A & B", "s", "ours", {"wait": "short", "absent": "none"})

    def test_draws_a_bar_for_each_of_the_others(self):
        measured = results("us", {"ours": [1, 1, 1], "a": [2, 2, 4], "b": [0.2, 0.25, 0.25]})
        listed = [contender("ours", ours=True), contender("b"), contender("a"), contender("absent")]
        root = xml.etree.ElementTree.fromstring(chart.draw(self.DRAWING, measured, listed))
        svg = "{http://www.w3.org/2000/svg}"
        texts = [text.text for text in root.iter(svg + "text")]
        self.assertIn("A & B", texts)
        self.assertIn("4.00 (4.00 to 5.00)", texts)
        self.assertIn("0.500 (0.250 to 0.500)", texts)
        self.assertLess(texts.index("b"), texts.index("a"))
        self.assertNotIn("absent", texts)
        bars = [bar for bar in root.iter(svg + "rect") if bar.get("class") != "page"]
        self.assertEqual([bar.get("class") for bar in bars], ["worse", "better"])
        # A bar is cut off at 2.
        b, a = (float(bar.get("width")) for bar in bars)
        self.assertAlmostEqual(b, 2 / 0.5 * a)

    def test_of_nothing_is_no_chart(self):
        measured = results("us", {"ours": [1]})
        self.assertIsNone(chart.draw(self.DRAWING, measured, [contender("ours", ours=True)]))


class DriverTest(unittest.TestCase):
    def test_leaves_out_what_is_not_installed_and_names_the_package(self):
        there = lists.Package("libthere-dev", "/")
        gone = lists.Package("libgone-dev", "/no/such/file")
        a, b = contender("a", needs=[there]), contender("b", needs=[there, gone])
        self.assertEqual(
            compare.split_installed([a, b]), ([a], [("b", "apt-get install libgone-dev")])
        )

    def test_runs_no_program_that_cannot_be_built_now(self):
        directory = pathlib.Path(os.environ["TEST_TMPDIR"])
        # Fails for //p:bad, and says that the programs are beside it.
        bazel = directory / "bazelw"
        bazel.write_text('#!/bin/sh\n[ $1 = info ] && pwd\n! echo "$@" | grep -q bad\n')
        bazel.chmod(0o755)
        good = contender("good", "//p:good", "--with=//p")
        mixed = contender("mixed", "//p:good", "//p:bad")
        programs = compare.Programs(directory, ["//p:good", "//p:bad"])
        self.assertEqual(programs.command(good), [f"{directory}/p/good", "--with=//p"])
        self.assertIsNone(programs.command(mixed))
        self.assertIsNotNone(compare.Programs(directory, ["//p:good"]).command(good))

    def program(self, name, body):
        """A program that is a contender."""
        path = pathlib.Path(os.environ["TEST_TMPDIR"]) / name
        path.write_text(f"#!{sys.executable}\nimport sys\n{body}\n")
        path.chmod(0o755)
        return [str(path)]

    def test_runs_all_contenders_of_a_case_in_each_round(self):
        record = '{"case": "%s", "contender": "%s", "unit": "us", "value": 1}'
        body = """
if "--list" in sys.argv:
    print("x\\ny")
else:
    print('%s' %% (sys.argv[-1].partition("=")[2], "%s"))
"""
        commands = {
            contender(name): self.program(name, body % (record, name)) for name in ("a", "b", "c")
        }
        cases = compare.list_cases(commands, "s/(x|y/c)")
        written = []
        failures = compare.measure(cases, commands, 2, True, written.append)
        self.assertEqual(failures, [])
        order = [(r["round"], r["case"], r["contender"]) for r in written]
        self.assertEqual(
            order,
            [(1, "x", "b"), (1, "x", "c"), (1, "x", "a"), (1, "y", "c")]
            + [(2, "x", "c"), (2, "x", "a"), (2, "x", "b"), (2, "y", "c")],
        )
        self.assertEqual({r["suite"] for r in written}, {"s"})

    def test_measures_what_hardly_differs_in_every_third_round(self):
        record = '{"case": "idle", "contender": "a", "unit": "ms", "value": 0}'
        commands = {contender("a"): self.program("idler", f"print('{record}')")}
        written = []
        compare.measure({("s", "idle"): list(commands)}, commands, 5, True, written.append)
        self.assertEqual([r["round"] for r in written], [1, 4])

    def test_goes_on_when_a_contender_fails(self):
        bodies = {
            "ends": 'sys.exit("at first\\nthe signal was lost")',
            "silent": "",
            "garbled": 'print("1 us")',
            "another": 'print(\'{"case": "x", "contender": "b", "unit": "us", "value": 1}\')',
            "good": 'print(\'{"case": "x", "contender": "good", "unit": "us", "value": 1}\')',
        }
        commands = {contender(name): self.program(name, body) for name, body in bodies.items()}
        written = []
        failures = compare.measure({("s", "x"): list(commands)}, commands, 2, False, written.append)
        self.assertEqual([r["contender"] for r in written], ["good", "good"])
        reasons = {failed.name: reason for failed, reason in failures}
        self.assertEqual(len(failures), 4)
        self.assertEqual(reasons["ends"], "s/x of ends: exit status 1, the signal was lost")
        self.assertEqual(reasons["silent"], "s/x of silent: it measured nothing")
        self.assertEqual(reasons["another"], "s/x of another: it calls itself b")


if __name__ == "__main__":
    unittest.main()
