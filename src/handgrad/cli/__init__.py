"""The command line, `handgrad train | check | trace | ...`, and what it prints of a run, for scripts of your own."""

from handgrad.cli.commands import main
from handgrad.cli.report import fresh_run_dir, print_results

__all__ = ["fresh_run_dir", "main", "print_results"]
