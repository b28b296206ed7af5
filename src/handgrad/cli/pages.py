"""`handgrad report` and `handgrad demo`: pages for a browser, each one file that needs no network."""

import argparse
from typing import Any

from handgrad.cli.arguments import add_command, at_least
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
    purpose = "write a page of a run: curves, wrong images, kernels, trace, gradient check"
    command = add_command(commands, "report", report, purpose)
    command.add_argument("run_dir", metavar="RUN_DIR", help="the run's folder, such as runs/digits")
    command.add_argument("--out", metavar="F", help="the file to write (report.html in the run's folder)")


def add_demo(commands: Any) -> None:
    """The command `demo` and its options."""
    purpose = "write a page on which small nets learn, step by step under a slider"
    command = add_command(commands, "demo", demo, purpose)
    command.add_argument("--out", metavar="F", default="demo.html", help="the file to write (%(default)s)")
    command.add_argument(
        "--problem", action="append", choices=sorted(PROBLEMS), help="which one; may be given again for several (all)"
    )
    command.add_argument("--activation", choices=("tanh", "relu"), default="tanh", help="of hidden units (%(default)s)")
    command.add_argument("--seed", metavar="S", type=at_least(0), default=0, help="of points and weights (%(default)s)")
