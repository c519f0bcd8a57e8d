"""The table of results, printed row by row."""

import statistics

WIDTHS = (47, 13, 16, 31, 19, 8, 5)
HEADS = ("what", "measured", "min..max", "floor or peer", "ratio", "goal", "met")


def number(value):
    if value >= 1000:
        return "{:,.0f}".format(value)
    if value == int(value):
        return "%d" % value
    return "%.*f" % (0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3, value)


def percentile(values, percent):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * percent / 100))]


def spread(values):
    return "%s..%s" % (number(min(values)), number(max(values)))


def middle(values):
    return "%s (%s)" % (number(statistics.median(values)), spread(values))


def line(cells):
    print(" ".join(str(cell).ljust(width) for cell, width in zip(cells, WIDTHS)).rstrip(), flush=True)


def meets(value, goal):
    return value < goal[1] if goal[0] == "<" else value >= goal[1]


def head():
    line(HEADS)
    line("-" * width for width in WIDTHS)


def row(what, values, unit, floor="", floors=None, goal=None, by="value"):
    """
    One line.  values: of all rounds.  floors: the floor's or peer's of the same
    rounds.  goal: ("<" or ">", number), of the median, or of the ratio's if by
    is "ratio".  A goal that the floor itself misses says more of the machine
    than of prometheus: "floor" instead of "NO".
    """
    ratios = [value / max(of, 0.001) for value, of in zip(values, floors)] if floors else []
    median = statistics.median(ratios if by == "ratio" else values)
    met = ""
    if goal:
        met = "yes" if meets(median, goal) else "NO"
        if met == "NO" and floors and by != "ratio" and not meets(statistics.median(floors), goal):
            met = "floor"
    floor_text = "%s%s" % (floor, " " + number(statistics.median(floors)) if floors else "")
    line((what, "%s %s" % (number(statistics.median(values)), unit), spread(values) if len(values) > 1 else "",
          floor_text, middle(ratios) if ratios else "",
          "%s %s%s" % (goal[0], "{:,g}".format(goal[1]), " x" if by == "ratio" else "") if goal else "", met))


def note(text):
    line(("  " + text,))
