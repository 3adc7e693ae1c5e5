"""Writes compile_commands.json, for clangd and clang-tidy: ./bazelw run //tools:compile_commands"""

import json
import os
import pathlib
import subprocess


def commands(actions, workspace, output_base):
    """The entry of each of our sources, from the CppCompile actions of Bazel's aquery."""
    entries = {}
    for action in actions:
        arguments = action["arguments"]
        source = arguments[arguments.index("-c") + 1]
        if source.startswith("external/"):
            continue
        # With and without -fPIC, or in two targets: one will do. It runs in the workspace, as
        # each build leaves in Bazel's own directory only what that build needs.
        entries[source] = {
            "directory": workspace,
            "file": source,
            "arguments": [f"{output_base}/{a}" if a.startswith("external/") else a for a in arguments],
        }
    return list(entries.values())


def main():
    workspace = os.environ["BUILD_WORKSPACE_DIRECTORY"]

    def bazel(*arguments):
        command = ["./bazelw", *arguments]
        return subprocess.run(command, cwd=workspace, check=True, stdout=subprocess.PIPE, text=True).stdout

    # Puts the headers where the include paths of the targets say, and compiles nothing.
    bazel("build", "--config=clang", "--output_groups=compilation_prerequisites_INTERNAL_", "//...")
    query = 'mnemonic("CppCompile", deps(//...))'
    actions = json.loads(bazel("aquery", "--config=clang", "--output=jsonproto", "--include_artifacts=false", query))
    entries = commands(actions["actions"], workspace, bazel("info", "output_base").strip())
    output = pathlib.Path(workspace, "compile_commands.json")
    output.write_text(json.dumps(entries, indent=1) + "\n")
    print(f"{output}: {len(entries)} sources")


if __name__ == "__main__":
    main()
