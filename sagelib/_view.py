"""What a sweep says of its cells while it runs, and what they are estimated to cost."""
import time

from . import records


def hours(cell):
    """GPU hours of a cell on a Tesla T4, scaled from the paper's Table 6 by epochs, images and width squared.

    A method or network that is not in the table counts as SAGE, or as PreActResNet18.
    """
    p = cell.parameters
    rows = {row["model"]: row for row in records.reported(6)}
    row = rows.get(p["model"], rows["preactresnet18"])
    size = (p.get("train_images") or 50_000) / 50_000 * ((p.get("width") or 64) / 64) ** 2
    return row.get(p["method"], row["sage"]) * (p.get("epochs") or 300) / 300 * size


class View:
    """What a sweep says while it runs: cells done, running and failed, and the time that is left."""

    def __init__(self, todo, say):
        self.todo, self.say, self.begun = {c.name: c for c in todo}, say, time.time()
        self.state = dict.fromkeys(self.todo, "waiting")

    def started(self, cell):
        self._to(cell, "running", "started")

    def again(self, cell):
        self._to(cell, "waiting", "was killed; it is tried again:")

    def done(self, cell):
        self._to(cell, "done", "done")

    def failed(self, cell, why, folder):
        self._to(cell, "failed", f"failed ({why}; see {folder})")

    def _to(self, cell, state, word):
        self.state[cell.name] = state
        count = {s: list(self.state.values()).count(s) for s in ("done", "running", "failed")}
        self.say(f"[{count['done']}/{len(self.todo)} done, {count['running']} running, {count['failed']} failed"
                 f"{self.left()}] {word} {cell.name}")

    def left(self):
        """The time that is left, by how far the finished work has come; nothing before the first is finished."""
        work = {name: hours(cell) for name, cell in self.todo.items()}
        ended = sum(work[n] for n, s in self.state.items() if s in ("done", "failed"))
        if not ended:
            return ""
        seconds = (time.time() - self.begun) * (sum(work.values()) - ended) / ended
        return f", {seconds / 3600:.1f} h left" if seconds > 5400 else f", {seconds / 60:.0f} min left"
