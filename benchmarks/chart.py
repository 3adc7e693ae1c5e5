"""Draws ratios as bars in SVG, legible on light and on dark pages."""

import html

_WIDTH = 760
_NAMES = 150  # where the bars begin
_BARS = 420  # how long the longest is
_ROW = 18
_TOP = 64

_STYLE = """
  .page { fill: #ffffff; }
  text { fill: #1f2328; font: 12px sans-serif; }
  .title { font-size: 15px; font-weight: bold; }
  .group { font-weight: bold; }
  .quiet { fill: #59636e; }
  .better { fill: #1a7f5a; }
  .worse { fill: #bc4c00; }
  .line { stroke: #1f2328; stroke-width: 1.5; }
  .one { stroke: #59636e; stroke-dasharray: 3 3; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; }
    text { fill: #e6edf3; }
    .quiet { fill: #9198a1; }
    .better { fill: #3fb68b; }
    .worse { fill: #f0883e; }
    .line { stroke: #e6edf3; }
    .one { stroke: #9198a1; }
  }
"""


def svg(title, subtitle, groups):
    """`groups` are pairs of a name and rows; a row is a name and its Spread.

    Bars end at the median, lines go from the lowest round to the highest. What is longer than the
    picture is cut off; the number beside it is not.
    """
    spreads = [spread for _, rows in groups for _, spread in rows]
    longest = min(2.0, max([1.1] + [spread.median * 1.1 for spread in spreads]))

    def x(ratio):
        return _NAMES + _BARS * min(ratio, longest) / longest

    body = []
    y = _TOP

    def text(at, content, css="", anchor="start"):
        body.append(
            f'<text x="{at:.1f}" y="{y}" class="{css}" text-anchor="{anchor}">'
            f"{html.escape(content)}</text>"
        )

    for group, rows in groups:
        y += _ROW
        text(12, group, "group")
        for name, spread in rows:
            y += _ROW
            text(_NAMES - 8, name, anchor="end")
            css = "better" if spread.median <= 1 else "worse"
            body.append(
                f'<rect x="{_NAMES}" y="{y - 11}" width="{x(spread.median) - _NAMES:.1f}" '
                f'height="13" class="{css}"/>'
            )
            body.append(
                f'<line x1="{x(spread.low):.1f}" x2="{x(spread.high):.1f}" y1="{y - 4.5}" '
                f'y2="{y - 4.5}" class="line"/>'
            )
            text(_NAMES + _BARS + 12, str(spread), "quiet")
        y += 6
    height = y + 16
    y = 24
    text(12, title, "title")
    y = 42
    text(12, subtitle, "quiet")
    y = _TOP
    text(x(1), "1.0", "quiet", "middle")
    one = f'<line x1="{x(1):.1f}" x2="{x(1):.1f}" y1="{_TOP + 4}" y2="{height - 10}" class="one"/>'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
            f'viewBox="0 0 {_WIDTH} {height}">',
            f"<style>{_STYLE}</style>",
            f'<rect width="{_WIDTH}" height="{height}" class="page"/>',
            *body,
            one,
            "</svg>\n",
        ]
    )


def draw(chart, results, contenders):
    """The SVG of one of contenders.CHARTS, or None if nothing of it was measured."""
    others = [c.name for c in contenders if c.suite == chart.suite and not c.ours]
    groups = []
    for metric, title in chart.metrics.items():
        ratios = {name: results.ratio(chart.suite, metric, chart.ours, [name]) for name in others}
        rows = [(name, ratio) for name, ratio in ratios.items() if ratio]
        if rows:
            groups.append((title, rows))
    if not groups:
        return None
    subtitle = "Ours divided by theirs: the shorter, the better. Median and range of the rounds."
    return svg(chart.title, subtitle, groups)
