#!/usr/bin/env python3
"""The figures on the pages for people, written from what was recorded: figures.py [--check]

A page says where a figure or a table goes, and which one:

    <!-- figures: size-report/figures.py top -->
    ...
    <!-- end -->

What is between the marks is written here, and README's first picture (beside.svg) is drawn, from latency.tsv (make bench RECORD=1) and init.tsv (make init RECORD=1);
nobody writes it by hand. --check changes nothing, and exits 1 where a page differs, or where a figure was never recorded.
"""
import csv
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
# A table stands on lines of its own; a single figure stands in its sentence.
MARKED = re.compile(r"(<!-- figures: size-report/figures\.py ([a-z0-9-]+) -->)(.*?)(<!-- end -->)", re.DOTALL)
# Whose table must be there, whatever else the page says.
REQUIRED = {"README.md": ["top"], "size-report/README.md": ["broken", "better"]}
# USD: a GB-second, a GB of log; and the memory that comes with one processor.
GB_SECOND, LOG_GB, PROCESSOR_GB = 0.0000166667, 0.50, 1.769
GO, OURS = "Go", "ours"


class NotRecorded(Exception):
    pass


class Recorded:
    """What the files say, by row and column."""

    def __init__(self, folder=HERE):
        def table(name):
            path = folder / name
            if not path.exists():
                return {}
            with open(path) as lines:
                return {row["what"]: row for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)}

        self.latency, self.init = table("latency.tsv"), table("init.tsv")

    def bench(self, what, who):
        return self.cell("latency.tsv", self.latency, what, who)

    def longer(self, what, who):
        return self.cell("init.tsv", self.init, what, who)

    @staticmethod
    def cell(name, rows, what, column):
        text = rows.get(what, {}).get(column)
        if not text:
            raise NotRecorded(f"{name} has no figure of {what!r}, {column}")
        return float(text)


def times(*micros):
    """Two digits that matter, all in the unit that suits the longest."""
    unit, size = next((unit, size) for unit, size in (("s", 1e6), ("ms", 1e3), ("µs", 1)) if max(micros) >= size or size == 1)
    values = [time / size for time in micros]
    return [f"{value:.{2 if value < 1 else 1 if value < 10 else 0}f} {unit}" for value in values]


def both(figure, what):
    """Grafana's and ours."""
    return figure(what, GO), figure(what, OURS)


def memory(recorded):
    return [f"{kib / 1024:.1f} MiB" for kib in both(recorded.bench, "idle RSS")]


def markdown(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n".replace("|  |", "| |") for line in lines)


def top(recorded):
    """What README begins with."""
    felt = [
        ("first profile of a cold sandbox, over TLS: CPU since the start", "first profile, chain of P-384: CPU since exec"),
        ("the same, from the upload until it is at the server", "first profile, chain of P-384: arrives after"),
        ("the same with 7.2 % of a processor, as a function of 128 MB has", "the same at 7.2 % of a processor: arrives after"),
        ("the tenth profile: CPU", "tenth profile: CPU"),
        ("first profile after a thaw: CPU", "first profile after a thaw, TLS resumed: CPU"),
    ]
    rows = [(words, *times(*both(recorded.bench, what))) for words, what in felt]
    for words, what in [
        ("60 profiles wait at shutdown, the server takes half a second for each: lost", "of 60 waiting at SHUTDOWN, server takes 500 ms"),
        ("5 are under way as the sandbox freezes and the server hangs up: lost", "of 5 under way at a freeze that drops them"),
        ("200 come while the server refuses connections: lost", "of 200 while the server refuses"),
    ]:
        rows.append((words, *(f"{lost:.0f}" for lost in both(recorded.bench, what))))
    rows += [
        ("a function's init in AWS's emulator is longer by", *init(recorded)),
        ("binary, x86_64", *(f"{size:,.0f} bytes" for size in both(recorded.bench, "binary"))),
        ("memory when idle", *memory(recorded)),
    ]
    return markdown(["", "Grafana's 1.7.1", "this one"], rows)


PICTURE = HERE / "beside.svg"
STYLE = """<style>
text { font: 14px system-ui, "Segoe UI", "Noto Sans", sans-serif; fill: #24292f }
.head { font-weight: 600; font-size: 16px } .quiet { fill: #59636e }
.ours { fill: #1a7f4b } .go { fill: #8c959f }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .quiet { fill: #9198a1 } .ours { fill: #3fb977 } .go { fill: #6e7681 }
}
</style>
"""


def picture(recorded):
    """README's first picture: a few things that a user feels, each with a bar for this extension and one for Grafana's."""
    rows = []
    for words, what in [
        ("First profile of a cold sandbox arrives after", "first profile, chain of P-384: arrives after"),
        ("… with the processor of a 128 MB function", "the same at 7.2 % of a processor: arrives after"),
        ("CPU for the first profile", "first profile, chain of P-384: CPU since exec"),
    ]:
        go, ours = both(recorded.bench, what)
        rows.append((words, ours / go, *(times(value)[0] for value in (ours, go))))
    go, ours = both(recorded.longer, "init")
    rows.append(("A function's init takes longer by", ours / go, *reversed(init(recorded))))
    go, ours = both(recorded.bench, "idle RSS")
    rows.append(("Memory when idle", ours / go, *reversed(memory(recorded))))
    go, ours = both(recorded.bench, "binary")
    rows.append(("Size of the binary", ours / go, *(f"{size / 2**20:.1f} MiB" for size in (ours, go))))
    go, ours = both(recorded.bench, "of 60 waiting at SHUTDOWN, server takes 500 ms")
    rows.append(("Lost of 60 profiles that wait at shutdown", ours / go, f"{ours:.0f}", f"{go:.0f}"))
    lines, height = [], 64 + 52 * len(rows)
    for n, (words, share, ours, go) in enumerate(rows):
        y = 60 + 52 * n
        short = max(300 * share, 1.5)
        lines.append(f"""<text x="16" y="{y + 19}">{words}</text>
<rect class="ours" x="330" y="{y}" width="{short:.1f}" height="14" rx="2"/><text x="{338 + short:.1f}" y="{y + 12}">{ours}</text>
<rect class="go" x="330" y="{y + 17}" width="300" height="14" rx="2"/><text class="quiet" x="638" y="{y + 29}">{go}</text>
""")
    spoken = "; ".join(f"{words}: {ours}, Grafana's {go}" for words, _, ours, go in rows)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{height}" viewBox="0 0 720 {height}" role="img" aria-label="{spoken}">
{STYLE}<text class="head" x="16" y="32">Shorter is better</text>
<rect class="ours" x="330" y="20" width="14" height="14" rx="2"/><text x="350" y="32">this extension</text>
<rect class="go" x="470" y="20" width="14" height="14" rx="2"/><text class="quiet" x="490" y="32">Grafana's 1.7.1</text>
{"".join(lines)}</svg>
"""


def init(recorded):
    return [f"{longer:.2f} ms" for longer in both(recorded.longer, "init")]


def cost(recorded):
    """What docs/cost.md starts from."""
    def pair(what):
        return times(*both(recorded.bench, what))

    without = recorded.longer("init", "without")
    return markdown(["", "without", "Grafana's", "this one"], [
        (f"init of a Python function that does nothing, {without:.2f} ms without: longer by", "0",
         *init(recorded)),
        ("CPU of a start, with 5 invocations", "0", *pair("CPU from exec to idle, 5 invocations")),
        ("an invocation: from INVOKE to asking for the next", "0", *pair("INVOKE → next")),
        ("CPU of a profile of 64 KiB, http", "0", *pair("64 KiB, 1 connection: CPU per payload")),
        ("memory when idle", "0", *memory(recorded)),
        ("log of a healthy sandbox with one upload, in text", "0",
         *(f"{size:.0f} bytes" for size in both(recorded.bench, "log of a healthy sandbox, one upload"))),
    ])


def bill(recorded):
    """What a million invocations a day pay for that, in USD."""
    def cpu(who):
        micros = [recorded.bench(what, who) for what in (
            "CPU from exec to idle, 5 invocations", "INVOKE → next", "64 KiB, 1 connection: CPU per payload")]
        return sum(n * time for n, time in zip((10_000, 1_000_000, 10_000), micros)) / 1e6

    def usd(who):
        return [
            10_000 * recorded.longer("init", who) / 1e3 * 0.5 * GB_SECOND,
            cpu(who) * PROCESSOR_GB * GB_SECOND,
            100_000 * recorded.bench("idle RSS", who) / 2**20 * GB_SECOND,
            10_000 * recorded.bench("log of a healthy sandbox, one upload", who) / 1e9 * LOG_GB,
        ]

    bills = [usd(who) for who in (GO, OURS)]
    itself = 100_000 * 0.5 * GB_SECOND + 0.20
    how = [
        ("longer inits", "10,000 × init × 0.5 GB"),
        ("CPU that the function does not get",
         f"(10,000 × start + 1,000,000 × invocation + 10,000 × profile) × 1.769 GB: {cpu(GO):.0f} s and {cpu(OURS):.0f} s"),
        ("memory, if the function is given that much more for it", "100,000 s × memory"),
        ("log", "10,000 × bytes"),
    ]
    rows = [(*words, *(f"{costs[n]:.4f}" for costs in bills)) for n, words in enumerate(how)]
    rows += [
        ("**in all**", "", *(f"**{sum(costs):.4f}**" for costs in bills)),
        ("in a year", "", *(f"{sum(costs) * 365:.2f}" for costs in bills)),
        (f"of what the function costs itself: 100,000 s × 0.5 GB, and 0.20 for a million requests, {itself:.2f} a day", "",
         *(f"{sum(costs) / itself:.1%}".replace("%", " %") for costs in bills)),
    ]
    return markdown(["USD a day", "how", "Grafana's", "this one"], rows)


def shown(row, column):
    value = float(row[column])
    if row["unit"] == "µs" and is_itself(row):
        return times(value)[0]
    return f"{value:,.2f}" if value != int(value) else f"{value:,.0f}"


def is_itself(row):
    """Whether the figure is judged as it is, and not as a ratio to the base."""
    return row["judged"] == row["ours"]


def is_rate(row):
    return row["unit"] == "/s"


def broken(recorded):
    """The rows that do not keep their promise."""
    found = []
    for row in recorded.latency.values():
        if row["promise"] and row["judged"]:
            judged, promise = float(row["judged"]), float(row["promise"])
            if judged < promise if is_rate(row) else judged > promise:
                found.append(f"* {row['what']}: {shown(row, 'judged')} instead of {shown(row, 'promise')}\n")
    return "".join(found) or "* none\n"


def better(recorded):
    """The rows in which the Go extension's median is the better one."""
    found = []
    for row in recorded.latency.values():
        if row["Go"] and row["ours"] and row["what"]:
            go, ours = float(row["Go"]), float(row["ours"])
            if go > ours if is_rate(row) else go < ours:
                unit = f" {row['unit']}" if row["unit"] else ""
                found.append(f"* {row['what']}: {go:,.0f}{unit} there, {ours:,.0f}{unit} here\n")
    return "".join(found) or "* in none\n"


def start_of_128(recorded, who):
    return f"{recorded.bench('CPU from exec to idle, 5 invocations', who) / 1e3 / 0.072:.1f} ms"


FIGURES = {
    "top": top,
    "cost": cost,
    "bill": bill,
    "broken": broken,
    "better": better,
    "init-shorter": lambda recorded: f"{recorded.longer('init', GO) - recorded.longer('init', OURS):.1f} ms",
    "start-128-go": lambda recorded: start_of_128(recorded, GO),
    "start-128-ours": lambda recorded: start_of_128(recorded, OURS),
}


def written(page, text, recorded, breaches):
    """The page as it should be."""
    names = []

    def fill(found):
        opening, name, inside, closing = found.groups()
        names.append(name)
        if name not in FIGURES:
            breaches.append(f"{page}: figures.py knows no {name!r}")
            return found[0]
        try:
            figures = FIGURES[name](recorded)
        except NotRecorded as missing:
            breaches.append(f"{page}: {name}: {missing}")
            return found[0]
        return f"{opening}\n{figures}{closing}" if "\n" in figures else f"{opening}{figures}{closing}"

    text = MARKED.sub(fill, text)
    breaches += [f"{page}: the table of figures {name!r} is missing"
                 for name in REQUIRED.get(page, []) if name not in names]
    if text.count("<!-- figures:") != len(names):
        breaches.append(f"{page}: a mark of figures is never closed, or is another than figures.py reads")
    return text


def main():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True)
    breaches, recorded = [], Recorded()
    for page in listed.stdout.split():
        before = (ROOT / page).read_text()
        after = written(page, before, recorded, breaches)
        if after != before and "--check" in sys.argv:
            breaches.append(f"{page}: figures are not those recorded: size-report/figures.py writes them")
        elif after != before:
            (ROOT / page).write_text(after)
            print(f"figures: {page} written")
    try:
        drawn = picture(recorded)
        if not PICTURE.exists() or PICTURE.read_text() != drawn:
            if "--check" in sys.argv:
                breaches.append(f"{PICTURE.name}: is not what was recorded: size-report/figures.py draws it")
            else:
                PICTURE.write_text(drawn)
                print(f"figures: {PICTURE.name} drawn")
    except NotRecorded as missing:
        breaches.append(f"{PICTURE.name}: {missing}")
    print("\n".join(f"figures: {breach}" for breach in breaches), end="\n" if breaches else "")
    sys.exit(bool(breaches))


if __name__ == "__main__":
    main()
