"""Text of two pages that is written from the files of sagelib when the site is built: the
reference, and the map's second table. A file that is added or moved shows up in both; neither page
is edited.

First come the files whose names `from sagelib import ...` gives, the one with most of them at the
top. The others come in the order of their first mention on the map, which is the paper's order, and
then in the alphabet's.
"""
import ast
import functools
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

MARK = "<!-- library_pages -->"  # the written text replaces this line
MAP = "notebooks/index"


def setup(app):
    app.connect("source-read", write)
    app.connect("autodoc-process-signature", without_leading_spaces)
    app.config.autodoc_member_order = "bysource"
    return {"parallel_read_safe": True}


def without_leading_spaces(app, kind, name, shown, options, signature, returns):
    """A signature for readers: jaxtyping's ' b', whose space is for linters, is 'b'."""
    return tuple(text and text.replace("' ", "'") for text in (signature, returns))


def write(app, page, source):
    """Put the written text into one of the two pages; ValueError if the page has no line for it."""
    if page in PAGES:
        if source[0].count(MARK) != 1:
            raise ValueError(f"{page}.md needs the line {MARK} once: the text from sagelib's "
                             "files goes there")
        library = Path(find_spec("sagelib").origin).parent
        source[0] = source[0].replace(
            MARK, PAGES[page](library, (Path(app.srcdir) / f"{MAP}.md").read_text()))


@dataclass(frozen=True)
class Module:
    """A file of sagelib, such as methods/sage.py, and which of its classes are shown: None for all
    that is public."""

    path: Path
    library: Path
    classes: tuple | None = None

    file = property(lambda self: self.path.relative_to(self.library).as_posix())
    # "." for the top
    folder = property(lambda self: self.path.relative_to(self.library).parent.as_posix())

    @functools.cached_property
    def tree(self):
        return ast.parse(self.path.read_text(encoding="utf-8"))

    @property
    def public(self):
        return not any(part.startswith("_") for part in self.file.split("/"))

    @property
    def opening(self):
        """The first paragraph of the docstring on one line, without a last sentence that announces
        a list."""
        paragraph = " ".join((ast.get_docstring(self.tree) or "").split("\n\n")[0].split())
        return re.sub(r"(?<=[.;]) [^.;]*:$", "", paragraph)


def reference(library, map_text):
    """MyST for the reference: a section for each folder with a table of its files, and each file's
    docstrings."""
    text = []
    for folder, modules in folders(library, map_text).items():
        package = Module(library / folder / "__init__.py", library)
        text += [f"## `sagelib/{'' if folder == '.' else f'{folder}/'}`", as_myst(package.opening),
                 table(modules, lambda module: module.path.name)]
        for module in modules:
            name = "sagelib." + module.file.removesuffix(".py").replace("/", ".")
            shown = ":members:", ":special-members: __call__"
            text += [
                f"({_anchor(module)})=", f"### `{module.path.name}`",
                _directive("automodule", name, *(shown if module.classes is None else ())),
                *(_directive("autoclass", f"{name}.{own}", *shown) for own in module.classes or ())]
    return "\n\n".join(text)


def rest(library, map_text):
    """MyST for the map: a table of all public files that its first table does not name."""
    named = _named(map_text)
    found = [m for modules in folders(library, map_text).values() for m in modules]
    return table([m for m in found if m.public and m.file not in named])


PAGES = {"book/api": reference, MAP: rest}


def folders(library, map_text):
    """Folder -> its modules in the order in which they are shown: the public ones, then those of
    `shared`."""
    every = [Module(path, library) for path in sorted(library.rglob("*.py"))
             if path.name != "__init__.py"]
    named, exported = _named(map_text), _exported(library)

    def order(module):
        own = exported & {node.name for node in module.tree.body
                          if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
        place = named.index(module.file) if module.file in named else len(named)
        return -len(own), place, module.file

    found = {}
    for module in sorted((m for m in every if m.public), key=order):
        found.setdefault(module.folder, []).append(module)
    for folder, public in found.items():
        public += shared([m for m in every if m.folder == folder and not m.public], public,
                         exported)
    first = {folder: min(map(order, modules)) for folder, modules in found.items()}
    return {folder: found[folder]
            for folder in sorted(found, key=lambda f: (f != ".", first[f][1:]))}


def shared(private, public, exported):
    """The private modules of a folder with classes that its public modules import, those classes
    alone.

    At the top of sagelib only the classes that it exports count.
    """
    wanted = exported
    if public[0].folder != ".":
        wanted = {alias.name for module in public for node in ast.walk(module.tree)
                  if isinstance(node, ast.ImportFrom) for alias in node.names}
    found = []
    for module in private:
        classes = tuple(node.name for node in module.tree.body if isinstance(node, ast.ClassDef)
                        and node.name in wanted and not node.name.startswith("_"))
        found += [Module(module.path, module.library, classes)] if classes else []
    return found


def table(modules, name=lambda module: module.file):
    """A table of files, each with its opening and a link to its section of the reference."""
    rows = [f"| [`{name(m)}`]({_anchor(m)}) | {as_myst(m.opening)} |" for m in modules]
    return "\n".join(["| file | what it is |", "|---|---|", *rows])


def as_myst(text):
    """Plain text with `code` as MyST inside a table; links to arXiv get their number as text."""
    parts = re.split(r"(`[^`]+`|https?://[^\s,;]*[^\s,;.)])", text)
    return "".join(_code_or_link(part) if k % 2 else re.sub(r"([\\*_\[\]<>|$#~^{}])", r"\\\1", part)
                   for k, part in enumerate(parts))


def _code_or_link(part):
    if part.startswith("`"):
        return part.replace("|", r"\|")
    number = re.fullmatch(r"https://arxiv\.org/abs/(\S+)", part)
    return f"[arXiv:{number[1]}]({part})" if number else f"<{part}>"


def _named(map_text):
    return list(dict.fromkeys(re.findall(r"`([a-z0-9_/]+\.py)`", map_text)))


def _exported(library):
    """The names in sagelib's `__all__`."""
    for node in ast.parse((library / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def _anchor(module):
    name = re.sub(r"[^a-z0-9]+", "-", module.file.removesuffix(".py"))
    return f"api-{name}{'' if module.public else '-classes'}"


def _directive(name, argument, *options):
    return "\n".join(["```{eval-rst}", f".. {name}:: {argument}",
                      *(f"   {option}" for option in options), "```"])
