"""Where the repository keeps the benchmark's files; an installed library does not have them."""
from pathlib import Path

TOP = Path(__file__).parents[2]
RESULTS = TOP / "book/results"  # the book's own records
REPORTED = TOP / "book/reported"  # the paper's numbers, a file for each table
MEASURED = TOP / "book/measured"  # what was measured outside a record
PLANS = TOP / "book/plans"
EXPERIMENTS = TOP / "notebooks/experiments"
