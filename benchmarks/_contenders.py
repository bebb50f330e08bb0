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
    """Measure and show the tables that `args.only` names, and keep them in a file, in place of what was there of them."""
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
