"""`python -m sagelib demo`: every method on the same photographs, in a minute."""
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def main(words: Sequence[str] | None = None) -> None:
    """Run a command of the library from its words, those of the command line by default."""
    parser = argparse.ArgumentParser(prog="python -m sagelib",
                                     description="SAGE and its baselines for image mixing.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo", help="mix the same photographs by every method",
        description="Mix the same photographs by every method, into one figure, and print how "
                    "much saliency the mixed images keep. It takes about a minute.")
    demo.add_argument("--out", default="sage_demo.jpg", help="the figure (default: %(default)s)")
    demo.add_argument("--seed", type=int, default=0, help="of the network and of the draws")
    given = parser.parse_args(words)
    try:
        import matplotlib
        matplotlib.use("agg")
        from . import demo as module
        found = module.run(given.out, given.seed)
    except ImportError as error:
        sys.exit(f"the demo needs the extra packages of the book ({error}): "
                 "pip install 'sagelib[book]'")
    except ValueError as error:
        sys.exit(str(error))
    print(f"Saliency that a mixed image keeps, mean over {module.IMAGES} photographs "
          "(1: as much as one image has; 2: all of both):\n")
    print(module.table(found))
    print(f"\nThe mixed images: {given.out}. What training with a method gives is another "
          "question: see the scorecard.")


if __name__ == "__main__":
    main()
