"""Medians, ratios and tables of what compare.py has measured."""

import collections
import dataclasses
import statistics


def number(value):
    """In three digits: 1,234 or 12.3 or 0.0123."""
    if value == 0 or abs(value) >= 999.5:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


@dataclasses.dataclass(frozen=True)
class Spread:
    """The median of some rounds and their range."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values):
        return Spread(statistics.median(values), min(values), max(values)) if values else None

    def __str__(self):
        return f"{number(self.median)} ({number(self.low)} to {number(self.high)})"


class Results:
    def __init__(self, records=()):
        self.units = {}  # (suite, metric) -> unit, in the order of arrival
        self._values = collections.defaultdict(dict)  # (suite, metric, contender) -> round -> value
        for record in records:
            self.add(record)

    def add(self, record):
        key = record["suite"], record["case"]
        self.units.setdefault(key, record["unit"])
        self._values[(*key, record["contender"])][record["round"]] = record["value"]

    def contenders(self, suite, metric):
        return [c for s, m, c in self._values if (s, m) == (suite, metric)]

    def spread(self, suite, metric, contender):
        return Spread.of(list(self._values.get((suite, metric, contender), {}).values()))

    def ratio(self, suite, metric, ours, theirs):
        """Ours to the best of theirs, round by round; None if nothing can be compared."""
        mine = self._costs(suite, metric, ours)
        others = [self._costs(suite, metric, name) for name in theirs]
        ratios = []
        for number_of_round, cost in mine.items():
            present = [other[number_of_round] for other in others if number_of_round in other]
            if present:
                ratios.append(cost / min(present))
        return Spread.of(ratios)

    def _costs(self, suite, metric, contender):
        """By round. A rate costs its inverse; what is 0 has no ratio to anything."""
        values = self._values.get((suite, metric, contender), {})
        is_rate = self.units.get((suite, metric), "").endswith("/s")
        return {r: 1 / v if is_rate else v for r, v in values.items() if v > 0}


def judge(results, target):
    """For each of the target's metrics: (metric, what was reached or None, met, who was missing)."""
    for metric in target.metrics:
        present = results.contenders(target.suite, metric)
        missing = [name for name in target.against if name not in present]
        if target.against:
            reached = results.ratio(target.suite, metric, target.ours, target.against)
        else:
            reached = results.spread(target.suite, metric, target.ours)
        met = None
        if reached:
            met = (reached.high if target.every_round else reached.median) <= target.limit
        yield metric, reached, met, missing


def target_table(results, targets):
    lines = ["| target | of | at most | reached | |", "| --- | --- | ---: | ---: | --- |"]
    for target in targets:
        for metric, reached, met, missing in judge(results, target):
            unit = "x" if target.against else results.units.get((target.suite, metric), "")
            if reached:
                verdict = "met" if met else "**missed**"
            else:
                verdict = "not measured"
            if missing:
                verdict += ", without " + ", ".join(missing)
            limit = f"{number(target.limit)} {unit}".strip()
            lines.append(f"| {target.text} | {metric} | {limit} | {reached or ''} | {verdict} |")
    return "\n".join(lines) + "\n"


def value_tables(results, contenders):
    """A table for each metric: everybody's values, and our ratios to them."""
    sections = []
    last_suite = None
    for (suite, metric), unit in results.units.items():
        if suite != last_suite:
            sections.append(f"## {suite}\n")
            last_suite = suite
        who = results.contenders(suite, metric)
        all_of_them = [c for c in contenders if c.suite == suite and c.name in who]
        names = [c.name for c in all_of_them]
        us = [c.name for c in all_of_them if c.ours]
        header = ["", unit, "range"] + [f"{name} to it" for name in us]
        lines = [
            f"### {metric}\n",
            "| " + " | ".join(header) + " |",
            "| --- |" + " ---: |" * (len(header) - 1),
        ]
        for name in names:
            spread = results.spread(suite, metric, name)
            cells = [name, number(spread.median), f"{number(spread.low)} to {number(spread.high)}"]
            for mine in us:
                ratio = results.ratio(suite, metric, mine, [name]) if mine != name else None
                cells.append(str(ratio or ""))
            lines.append("| " + " | ".join(cells) + " |")
        sections.append("\n".join(lines) + "\n")
    return "\n".join(sections)


def markdown(about, results, contenders, targets, absent, failures):
    """The whole page. `about` says how it was measured, by name."""
    parts = [f"# {about['date']}, {about['cpu']}, {about['compiler']}\n"]
    parts.append("\n".join(f"- {name}: {value}" for name, value in about.items()) + "\n")
    parts.append(
        "Medians of the rounds. A ratio is ours to theirs in the same round, of times; of rates it is\n"
        "that of the time for each thing. So below 1 ours is the better one, always.\n"
    )
    if absent:
        parts.append("Left out, for they are not installed:\n")
        parts.append("\n".join(f"- {name}: {packages}" for name, packages in absent) + "\n")
    if failures:
        parts.append("Failed:\n")
        parts.append("\n".join(f"- {failure}" for failure in failures) + "\n")
    measured = {suite for suite, _ in results.units}
    targets = [target for target in targets if target.suite in measured]
    if targets:
        parts += ["## Targets\n", target_table(results, targets)]
    parts.append(value_tables(results, contenders))
    return "\n".join(parts)
