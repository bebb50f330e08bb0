"""How contenders of a benchmark take turns: each has a process of its own, since threads of several libraries in one get in
each other's way.

A table is a function of the arguments, with a docstring for a title, that returns {name: prepare}. `prepare`, called in the
contender's process, returns a clock, a function that returns seconds, and a function that returns a note for the table.
"""

import multiprocessing
import sys
import warnings
from importlib.util import find_spec
from statistics import median

from _machine import header
from _timing import alternated, markdown, read_csv, write_csv

NEEDS = {"PyTorch": "torch", "scikit-learn-intelex": "sklearnex", "cyanure": "cyanure"}


def work(pipe, table, name, args):
    """The process of a contender."""
    warnings.simplefilter("ignore")  # fits are cut short on purpose
    clock, note = table(args)[name]()
    pipe.send("ready")
    while pipe.recv() == "run":
        pipe.send(clock())
    pipe.send(note())


def measure(table, args):
    """The rows of a table."""
    context = multiprocessing.get_context("spawn")
    pipes, processes, clocks = {}, [], {}
    for name in table(args):
        module = NEEDS.get(name.split()[0].rstrip(","))
        if module and find_spec(module) is None:
            print(f"({name} is left out: {module} is not installed)")
            continue
        pipes[name], theirs = context.Pipe()
        processes.append(context.Process(target=work, args=(theirs, table, name, args)))
        processes[-1].start()
        theirs.close()
        pipes[name].recv()  # while one prepares, nothing else runs
        print(f"   {name}: ready", file=sys.stderr, flush=True)

        def clock(pipe=pipes[name]):
            pipe.send("run")
            return pipe.recv()

        clocks[name] = clock
    times = alternated(clocks, args.rounds)
    reference = {}
    for name, taken in times.items():
        group = name.partition(":")[0] if ":" in name else ""
        reference.setdefault(group, median(taken))
        pipes[name].send("note")
        yield {
            "table": table.__name__, "contender": name, "ms": 1e3 * median(taken), "fastest": 1e3 * min(taken),
            "slowest": 1e3 * max(taken), "runs": len(taken), "ratio": median(taken) / reference[group],
            "note": pipes[name].recv(),
        }  # fmt: skip
    for process in processes:
        process.join()


def number(x):
    """Three digits or more."""
    return f"{x:,.{2 if x < 10 else 1 if x < 100 else 0}f}"


def report(rows):
    def shown(r):
        return {
            "contender": r["contender"], "median": f"{number(r['ms'])} ms",
            "range": f"{number(r['fastest'])} – {number(r['slowest'])}", "runs": str(r["runs"]),
            "ratio": f"{number(r['ratio'])} x", "note": r["note"],
        }  # fmt: skip

    table = [shown(r) for r in rows]
    if not any(r["note"] for r in rows):
        for line in table:
            del line["note"]
    markdown(table)


def run(tables, file_name, args):
    """Measure and show the tables that `args.only` names, and keep them in a file, in place of what was there of them.

    Returns all rows of the file.
    """
    warnings.simplefilter("ignore")
    print(header())
    path = args.out / file_name
    rows = [r for r in read_csv(path) if r["table"] not in args.only] if path.exists() else []
    for name in args.only:
        print(f"\n{tables[name].__doc__}", flush=True)
        found = list(measure(tables[name], args))
        report(found)
        rows += found
        write_csv(path, rows)
    return rows


def draw(tables, rows, path, is_ours):
    """A picture of the tables: a bar for each contender, those that are ours in a colour of their own."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    ink, paper, accent, grey = "#22303c", "#fbfaf7", "#c8553d", "#8d99a6"
    plt.rcParams.update({"text.color": ink, "xtick.color": ink, "ytick.color": ink, "font.size": 8})
    found = {name: [r for r in rows if r["table"] == name] for name in tables}
    found = {name: rows for name, rows in found.items() if rows}
    heights = [len(rows) + 1.5 for rows in found.values()]
    figure, grid = plt.subplots(
        len(found), 1, figsize=(10, 0.9 + 0.21 * sum(heights)), height_ratios=heights, facecolor=paper,
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for axes, (name, rows) in zip(grid[:, 0], found.items(), strict=True):
        ms = [float(r["ms"]) for r in rows]
        ours = [is_ours(r) for r in rows]
        axes.barh(range(len(rows)), ms, color=[accent if our else grey for our in ours], height=0.7)
        for i, r in enumerate(rows):
            text = f"{number(float(r['ms']))} ms   {number(float(r['ratio']))} x   {r['note']}"
            axes.annotate(text, (ms[i], i), (4, 0), textcoords="offset points", va="center", fontsize=7)
        axes.set_yticks(range(len(rows)), [r["contender"] for r in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set(xscale="log", xlim=(min(ms) / 3, max(ms) * 30))
        axes.set_title(tables[name].__doc__, loc="left", fontsize=9, fontweight="bold")
        axes.set_facecolor(paper)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.tick_params(length=0)
        axes.set_xticks([], [])
        axes.minorticks_off()
    figure.suptitle("skdl beside its peers: milliseconds, on a logarithmic scale", x=0.01, ha="left", fontsize=13,
                    fontweight="bold")  # fmt: skip
    figure.savefig(path, dpi=110, facecolor=paper)
