"""`python -m benchmarks`: time handgrad beside its peers and write the figures down.

    python -m benchmarks                            everything, and docs/benchmarks.json, the table and the charts
    python -m benchmarks --only steps,pools         some sections
    python -m benchmarks --quick                    small and short, to see that all works; writes nothing

Progress goes to standard error, tables to standard output.
"""

import sys

from benchmarks.report import main

if __name__ == "__main__":
    sys.exit(main())
