"""`handgrad report` and `handgrad demo`: pages for a browser, each one file that needs no network."""

import argparse
from typing import Any

from handgrad.data.two_d import PROBLEMS
from handgrad.viz import demo_2d
from handgrad.viz import report as write_report


def report(options: argparse.Namespace) -> int:
    """Write the page of a run; the exit code."""
    path = write_report(options.run_dir, options.out)
    print(f"report      {path}, {path.stat().st_size / 1e3:.0f} KB; open it in a browser")
    return 0


def demo(options: argparse.Namespace) -> int:
    """Train the demo's nets and write its page; the exit code."""
    print(f"training small nets on {', '.join(options.problem or PROBLEMS)} ...", flush=True)
    path = demo_2d(options.out, options.problem or tuple(PROBLEMS), seed=options.seed, activation=options.activation)
    print(f"demo        {path}, {path.stat().st_size / 1e3:.0f} KB; open it in a browser")
    return 0


def add_report(commands: Any) -> None:
    """The command `report` and its options."""
    command = commands.add_parser(
        "report",
        help="write a page of a run: curves, wrong images, kernels, trace, gradient check",
        description="Write one page of all that a run's folder holds, which needs no network and no server.",
    )
    command.add_argument("run_dir", metavar="RUN_DIR", help="the run's folder, such as runs/digits")
    command.add_argument("--out", metavar="F", help="the file to write (report.html in the run's folder)")
    command.set_defaults(run=report)


def add_demo(commands: Any) -> None:
    """The command `demo` and its options."""
    command = commands.add_parser(
        "demo",
        help="write a page on which small nets learn, step by step under a slider",
        description="Train small nets on problems in the plane and write a page that plays their training: boundary, "
        "weights, gradients and loss. Defaults are in brackets.",
    )
    command.add_argument("--out", metavar="F", default="demo.html", help="the file to write (%(default)s)")
    command.add_argument(
        "--problem", action="append", choices=sorted(PROBLEMS), help="which one; may be given again for several (all)"
    )
    command.add_argument("--activation", choices=("tanh", "relu"), default="tanh", help="of hidden units (%(default)s)")
    command.add_argument("--seed", metavar="S", type=int, default=0, help="of points and weights (%(default)s)")
    command.set_defaults(run=demo)
