"""What is older than the records: `python ci/stale.py [--save] NOTEBOOKS`.

Prints, without failing, the guarded paragraphs of the executed notebooks under NOTEBOOKS that no
longer agree with the records (`show.written_for`), and whether the README's count of reproduced
numbers or the comment that opens a plan is out of date; `--save` writes these anew.
"""

import argparse
import re
import textwrap
from pathlib import Path

import nbformat

from sagelib import files, show
from sagelib.bench import scorecard
from sagelib.bench.sweep import estimate, opening

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCK = re.compile(r"(<!-- progress -->\n).*?(\n<!-- /progress -->)", re.S)


def main():
    options = argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--save", action="store_true",
                         help="write the README's count and the plans' openings anew")
    options.add_argument("notebooks", type=Path)
    asked = options.parse_args()
    for line in paragraphs(asked.notebooks):
        print(f"to rewrite: {line}")
    for file, new in renewed():
        if asked.save:
            files.replace(file, new)
        else:
            print(f"to update: {file.relative_to(README.parent)} (`ci/book --save` does it)")


def renewed():
    """(file, its new text) of the README and the plans that are not as the records have it."""
    progress, machines = scorecard.progress_text(scorecard.book()), estimate.machines()
    for file in (README, *opening.book()):
        text = file.read_text()
        new = counted(text, progress) if file == README else opening.renewed(file, text, machines)
        if new != text:
            yield file, new


def paragraphs(folder):
    """The notes of `show.written_for` in the outputs of the notebooks, each with its file."""
    for path in sorted(folder.rglob("*.ipynb")):
        for cell in nbformat.read(path, 4).cells:
            for out in cell.get("outputs", ()):
                found = out.get("data", {}).get("text/markdown", "")
                if show.STALE in found:
                    yield f"{path.name}: {found.split('”')[0].split('“')[-1]}"


def counted(text, progress):
    """The README with today's count between its two marks; ValueError without them."""
    if not BLOCK.search(text):
        raise ValueError("README.md lacks the marks <!-- progress --> and <!-- /progress -->")
    lines = "\n".join(textwrap.wrap(progress, 110))
    return BLOCK.sub(lambda found: f"{found[1]}{lines}{found[2]}", text)


if __name__ == "__main__":
    main()
