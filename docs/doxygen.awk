# Makes of the comments in our headers what Doxygen reads.
#
# A comment above a declaration tells of it. The one at the top tells of the file, and of the
# class that the file is named after if that has no comment of its own. What is set in by two
# blanks more is a sample.

function write_line(line) {
  print line
  if (at_top) top = top line "\n"
}

function toggle_sample() {
  write_line("/// ~~~")
  sample = !sample
}

FNR == 1 {
  count = split(FILENAME, path, "/")
  word_count = split(substr(path[count], 1, index(path[count], ".") - 1), words, "_")
  for (i = 1; i <= word_count; ++i) {
    class_name = class_name toupper(substr(words[i], 1, 1)) substr(words[i], 2)
  }
  print "/// \\file"
  at_top = 1
}

{
  commented = comment
  comment = /^ *\/\/( |$)/
}

comment {
  sub(/^ *\/\/ ?/, "")
  if (/^  / != sample) toggle_sample()
  if (!sample) gsub(/[<@]/, "\\\\&")
  write_line("/// " $0)
  next
}

sample { toggle_sample() }

{ at_top = 0 }

# The version is not part of what callers write.
/^namespace tocsin::inline / { sub(/::inline v[0-9_]+/, "") }

/^template </ && !commented {
  template = $0 "\n"
  next
}

{
  if ($0 ~ "^(class|struct) ([^ ]+ )?" class_name " " && !commented) printf "%s", top
  # What a member is may stand behind it.
  sub(/;  \/\/ /, ";  ///< ")
  print template $0
  template = ""
}
