"""Checks that the C++ in the documents is that of the example programs.

A block opened by ```cpp NAME shows, without its indentation, what stands in a
file of examples/ between the lines

    // [guide: NAME]
    // [guide]
"""

import difflib
import pathlib
import re
import textwrap
import unittest

DOCUMENTS = ["README.md", "docs/guide.md"]
OTHER_LANGUAGES = {"sh", "yaml", "ini", "python"}

OPENING = re.compile(r"\s*// \[guide: (.+)\]")
CLOSING = re.compile(r"\s*// \[guide\]")
FENCE = re.compile(r"\s*(?:```|~~~)(.*)")


def dedent(lines):
    return textwrap.dedent("\n".join(lines)).split("\n")


def regions():
    """The quoted parts of all examples: name to (file, lines)."""
    found = {}
    for path in sorted(pathlib.Path("examples").glob("*.cc")):
        name = None
        for line in path.read_text().splitlines():
            opening = OPENING.fullmatch(line)
            if opening:
                assert name is None, f"{path}: [guide: {opening[1]}] inside [guide: {name}]"
                name = opening[1]
                assert name not in found, f"{path}: [guide: {name}] again"
                found[name] = (path, [])
            elif CLOSING.fullmatch(line):
                assert name is not None, f"{path}: [guide] ends nothing"
                name = None
            elif name is not None:
                found[name][1].append(line)
        assert name is None, f"{path}: [guide: {name}] has no end"
    return {name: (path, dedent(lines)) for name, (path, lines) in found.items()}


def blocks(document):
    """Its fenced blocks: (line number, what stands behind the fence, lines)."""
    opened = None
    for number, line in enumerate(pathlib.Path(document).read_text().splitlines(), 1):
        fence = FENCE.fullmatch(line)
        if fence and opened is None:
            opened = (number, fence[1], [])
        elif fence:
            yield opened
            opened = None
        elif opened is not None:
            opened[2].append(line)
    assert opened is None, f"{document}:{opened[0]}: the block has no end"


class DocumentsTest(unittest.TestCase):
    longMessage = False

    def test_each_block_is_that_of_an_example(self):
        examples = regions()
        for document in DOCUMENTS:
            quoted = 0
            for number, info, lines in blocks(document):
                where = f"{document}:{number}"
                language, _, name = info.partition(" ")
                if language in OTHER_LANGUAGES:
                    continue
                with self.subTest(block=where):
                    self.assertEqual(language, "cpp", f"{where}: no known language")
                    self.assertIn(name, examples, f"{where}: no example has [guide: {name}]")
                    path, code = examples[name]
                    if lines != code:
                        self.fail("\n".join(difflib.unified_diff(code, lines, str(path), where, lineterm="")))
                    quoted += 1
            with self.subTest(document=document):
                self.assertGreater(quoted, 0, f"{document} has no C++")

    def test_each_marked_part_of_an_example_is_shown(self):
        shown = {info.partition(" ")[2] for document in DOCUMENTS for _, info, _ in blocks(document)}
        for name, (path, _) in regions().items():
            with self.subTest(example=name):
                self.assertIn(name, shown, f"{path}: no document shows [guide: {name}]")


if __name__ == "__main__":
    unittest.main()
