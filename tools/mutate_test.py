import pathlib
import tempfile
import unittest

from tools import mutate


def changes(line):
    return dict((changed.strip(), what) for what, changed in mutate.changes_of_line(line))


class Tree(unittest.TestCase):
    """A tree with one file and one list."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        (self.root / "tests/mutants").mkdir(parents=True)
        (self.root / "queue.cc").write_text("Push();\nif (full) Wait();\nPush();\n")

    def mutants(self, text):
        (self.root / "tests/mutants/queue.toml").write_text(text)
        return mutate.read_list(self.root)

    def one(self, old, new="", rest='promise = "p"\ntest = "queue_test:Queue.Waits"'):
        return self.mutants(
            f"[[mutant]]\nname = 'one'\nfile = 'queue.cc'\nold = '{old}'\nnew = '{new}'\n{rest}\n"
        )


class ListTest(Tree):
    def test_a_text_is_replaced_where_it_is_found(self):
        (mutant,) = self.one("if (full) ")
        mutate.check_list(self.root, [mutant])
        text = (self.root / "queue.cc").read_text()
        self.assertEqual(mutate.apply(text, mutant), "Push();\nWait();\nPush();\n")

    def test_a_text_that_is_gone_or_found_twice_is_an_error_that_names_the_mutant(self):
        for old, count in (("if (empty)", 0), ("Push();", 2)):
            with self.assertRaisesRegex(mutate.ListError, f"one: its text is found {count} times"):
                mutate.check_list(self.root, self.one(old))

    def test_a_mutant_names_a_test_and_a_promise_or_why_it_breaks_none(self):
        with self.assertRaisesRegex(mutate.ListError, "names no test or no promise"):
            mutate.check_list(self.root, self.one("if (full) ", rest=""))
        mutate.check_list(self.root, self.one("if (full) ", rest='equivalent = "Wait() asks, too"'))

    def test_a_change_of_nothing_or_of_no_file_is_an_error(self):
        with self.assertRaisesRegex(mutate.ListError, "changes nothing"):
            mutate.check_list(self.root, self.one("(full)", "(full)"))
        (self.root / "queue.cc").unlink()
        with self.assertRaisesRegex(mutate.ListError, "there is no queue.cc"):
            mutate.check_list(self.root, self.one("(full)"))

    def test_two_of_one_name_and_unknown_fields_are_errors(self):
        entry = "[[mutant]]\nname = 'one'\nfile = 'queue.cc'\nold = 'a'\nnew = 'b'\n"
        with self.assertRaisesRegex(mutate.ListError, "two mutants are called one"):
            self.mutants(entry + entry)
        with self.assertRaisesRegex(mutate.ListError, "one: .*'prommise'"):
            self.mutants(entry + "prommise = 'p'\n")


class SimpleChangesTest(unittest.TestCase):
    def test_calls_stores_and_locks_are_left_out(self):
        for line in (
            "FutexWakeOne(&word_);",
            "closed_ = true;",
            "count_ += n;",
            "++running_;",
            "MutexLock lock(mutex_);",
            "waiter->sleeper.WakeLater(wakes);",
            "places_[i].store(nullptr);",
        ):
            self.assertEqual(changes(f"  {line}")[";"], "left out", line)

    def test_what_is_no_whole_statement_stays(self):
        for line in ("return Closed();", "int x;", "Call(a,", "b);", "// Wake();", "#include <a>"):
            self.assertNotIn(";", changes(f"  {line}"), line)

    def test_conditions_are_negated(self):
        self.assertEqual(changes("  if (a(b)) return c(d);")["if (!(a(b))) return c(d);"], "negated")
        self.assertEqual(changes("  while (!done) {")["while (!(!done)) {"], "negated")
        self.assertIn("} else if (!(x)) {", changes("  } else if (x) {"))

    def test_operators_and_constants_are_exchanged(self):
        self.assertIn("a || b;", changes("a && b;"))
        self.assertIn("if (a <= b) {", changes("  if (a < b) {"))
        self.assertIn("n = size;", changes("n = size + 1;"))
        self.assertIn("return false;", changes("return true;"))

    def test_statements_change_places_with_the_next(self):
        text = "  a = 1;\n  Wake();\n  return;\n"
        swapped = [m for m in mutate.simple_mutants("x.cc", text, {1, 2, 3}) if "swapped" in m.name]
        self.assertEqual([m.new for m in swapped], ["  Wake();\n  a = 1;"])
        self.assertEqual(mutate.apply(text, swapped[0]), "  Wake();\n  a = 1;\n  return;\n")

    def test_only_the_lines_asked_for_are_changed(self):
        text = "Wake();\nWake();\n"
        (mutant,) = mutate.simple_mutants("x.cc", text, {2})
        self.assertEqual(mutate.apply(text, mutant), "Wake();\n;\n")


class OutputTest(unittest.TestCase):
    def test_tells_the_case_that_failed_hung_or_died(self):
        ran = "[ RUN      ] Queue.Waits\n"
        self.assertEqual(mutate.what_failed(ran + "[  FAILED  ] Queue.Waits (3 ms)\n"), "Queue.Waits")
        self.assertEqual(
            mutate.what_failed(ran + "[  FAILED  ] A/Q.W/0, where GetParam() = 1\n"), "A/Q.W/0"
        )
        self.assertEqual(
            mutate.what_failed(ran + "\nQueue.Waits: stands still: for 5 s\n"), "Queue.Waits (hangs)"
        )
        self.assertEqual(
            mutate.what_failed(ran + "\nthe end of main(): dies by signal 11\n"),
            "the end of main() (dies)",
        )
        self.assertEqual(mutate.what_failed(ran), "Queue.Waits (dies)")

    def test_runs_the_tests_first_that_are_named_after_the_file(self):
        tests = ["storm_test", "wait_test", "blocking_queue_test", "queue_races_test"]
        self.assertEqual(
            mutate.order_of_tests("concurrency/blocking_queue.h", tests),
            ["blocking_queue_test", "queue_races_test", "wait_test", "storm_test"],
        )


if __name__ == "__main__":
    unittest.main()
