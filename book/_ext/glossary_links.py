"""The first use of each term of the glossary on a page is a link to it. Sources need no markup."""
import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

GLOSSARY = "book/glossary"
APART = (nodes.title, nodes.reference, addnodes.pending_xref, nodes.literal, nodes.math,
         nodes.raw, nodes.literal_block, nodes.table, nodes.caption)  # no links in these


def setup(app):
    app.connect("doctree-read", link)
    return {"parallel_read_safe": True}


def terms(text):
    """The terms of a page's `{glossary}` directive, the longest first."""
    body = re.search(r"^```\{glossary\}\n(.*?)^```", text, re.S | re.M)[1]
    return sorted(re.findall(r"^(\S.*)$", body, re.M), key=len, reverse=True)


def link(app, doctree):
    page = app.env.docname
    if page == GLOSSARY or not page.startswith("notebooks/"):
        return
    left = terms((Path(app.srcdir) / f"{GLOSSARY}.md").read_text(encoding="utf-8"))
    for paragraph in list(doctree.findall(nodes.paragraph)):
        for text in list(paragraph.findall(nodes.Text)):
            if left and not _apart(text):
                parts = linked(str(text), left, page)
                if len(parts) > 1:
                    text.parent.replace(text, parts)


def _apart(text):
    """Whether a text is inside something that takes no link."""
    node = text
    while node is not None:
        if isinstance(node, APART):
            return True
        node = node.parent
    return False


def linked(text, left, page):
    """Nodes for a text in which terms are links; the terms that are found leave the list `left`."""
    found = []
    for term in list(left):
        match = re.search(rf"(?<![\w-]){re.escape(term)}s?(?![\w-])", text, re.I)
        if match and all(match.end() <= m.start() or m.end() <= match.start() for _, m in found):
            found.append((term, match))
            left.remove(term)
    parts, at = [], 0
    for term, match in sorted(found, key=lambda pair: pair[1].start()):
        reference = addnodes.pending_xref("", nodes.inline(match[0], match[0]), refdomain="std",
                                          reftype="term", reftarget=term, refdoc=page,
                                          refexplicit=True, refwarn=True)
        parts += [nodes.Text(text[at:match.start()]), reference]
        at = match.end()
    return [part for part in [*parts, nodes.Text(text[at:])] if part.astext()]
