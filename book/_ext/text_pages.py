"""The book in two more forms, written when the site is built: each page as Markdown with `llms.txt`
as their table of contents, and `book/print.html`, the pages one after another for a printer.
"""
import html
import posixpath
import re
from pathlib import Path

import nbformat
import yaml

MARK = "<!-- library_pages -->"  # text that only the site has
INDEX = "book/index"
UNPRINTED = ("book/api", "book/changes")  # to look up on a screen
LINES = 60  # of a printed output; longer ones are cut


def setup(app):
    app.connect("html-page-context", announce)
    app.connect("build-finished", write, priority=950)  # after the pages are light: book_site.py
    return {"parallel_read_safe": True}


def announce(app, page, template, context, doctree):
    """Each page names its Markdown, and the whole book for a printer."""
    if app.builder.name == "html" and page in contents(app.srcdir):
        to = posixpath.relpath(f"{page}.md", posixpath.dirname(page) or ".")
        context["metatags"] = context.get("metatags", "") + (
            f'\n<link rel="alternate" type="text/markdown" href="{to}" />')


def contents(source):
    """page -> the part of the book that it is in, in the order of the table of contents."""
    toc = yaml.safe_load((Path(source) / "book/_toc.yml").read_text(encoding="utf-8"))
    return {toc["root"]: "", **{chapter["file"]: part["caption"] for part in toc["parts"]
                                for chapter in part["chapters"]}}


def write(app, exception):
    if exception or app.builder.name != "html":
        return
    source, out, pages = Path(app.srcdir), Path(app.outdir), contents(app.srcdir)
    given = app.config.myst_substitutions
    texts = {page: substituted(markdown(source / page), given) for page in pages}
    for page, text in texts.items():
        (out / f"{page}.md").write_text(text, encoding="utf-8")
    (out / "llms.txt").write_text(overview(pages, texts), encoding="utf-8")
    whole = printed({page: (out / f"{page}.html").read_text(encoding="utf-8") for page in pages
                     if page not in UNPRINTED})
    (out / "book/print.html").write_text(whole, encoding="utf-8")


# Markdown

def markdown(page):
    """A page as Markdown: its file, or a notebook's text, code and outputs without images."""
    if page.with_suffix(".md").exists():
        return page.with_suffix(".md").read_text(encoding="utf-8").replace(MARK, "")
    parts = []
    for cell in nbformat.read(page.with_suffix(".ipynb"), as_version=4).cells:
        if cell.cell_type != "code":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "no description")
        parts += [shown for output in cell.outputs if (shown := _output(output, alt))]
    return "\n\n".join(parts) + "\n"


def _output(output, alt):
    """One output as Markdown, "" for what says nothing in words."""
    data = output.get("data", {})
    if any(kind.startswith("image/") for kind in data):
        return f"*Figure: {alt}*"
    if "text/markdown" in data:
        return data["text/markdown"]
    text = (output.get("text") or data.get("text/plain", "")).rstrip()
    if "text/html" in data or not text:
        return ""
    lines = text.splitlines()
    if len(lines) > LINES:
        lines[LINES:] = [f"... {len(lines) - LINES} more lines"]
    return "```text\n" + "\n".join(lines) + "\n```"


def substituted(text, values):
    """The text with `{{ name }}` replaced by the values of the site's configuration."""
    return re.sub(r"\{\{ (\w+) \}\}", lambda m: values.get(m[1], m[0]), text)


def overview(pages, texts):
    """`llms.txt`: the title, a summary, and a link to each page's Markdown by part of the book."""
    lines, part = [f"# {_title(texts[INDEX])}", "", f"> {_summary(texts[INDEX])}"], None
    for page, of in pages.items():
        if of != part:
            lines += ["", f"## {of or 'Start'}", ""]
            part = of
        summary = _summary(texts[page])
        lines.append(f"- [{_title(texts[page])}]({page}.md)" + (f": {summary}" if summary else ""))
    return "\n".join(lines) + "\n"


def _title(text):
    return re.search(r"^# (.+)$", text, re.M)[1]


def _summary(text):
    """The first sentence below the title, without markup."""
    below = text[re.search(r"^# .+$", text, re.M).end():]
    prose = next((p for p in re.split(r"\n\s*\n", below) if re.match(r"\s*\*{0,2}\w", p)), "")
    prose = re.sub(r"\{[\w:]+\}`[^`]*`|\]\([^)]*\)|[\[*`]", "", " ".join(prose.split()))
    prose = re.sub(r" (?=[.,:])", "", " ".join(prose.split()))
    return re.match(r".*?[.?!](?= [A-Z]|$)|.*", prose)[0].rstrip(":")


# for a printer

def printed(pages):
    """One HTML page with the articles of all pages, links between them led to the places here."""
    first = pages[INDEX]
    head = re.search(r"<head>.*?</head>", first, re.S)[0]
    head = re.sub(r"<title>.*?</title>", "<title>The SAGE book, for a printer</title>", head)
    here = posixpath.dirname(INDEX)
    articles = [f'<section class="print-page" id="{_slug(page)}">\n'
                f"{_moved(_article(text), page, pages, here)}\n</section>"
                for page, text in pages.items()]
    return ('<!DOCTYPE html>\n<html lang="en" data-content_root="../" data-theme="light">\n'
            f'{head}\n<body><main class="bd-main"><article class="bd-article print-book">\n'
            + "\n".join(articles) + "\n</article></main></body>\n</html>\n")


def _article(text):
    """The inside of a page's article, its hidden cells open, its images loaded at once."""
    inside = re.search(r'<article class="bd-article">(.*?)</article>', text, re.S)[1]
    return inside.replace("<details", "<details open").replace(' loading="lazy"', "")


def _slug(page):
    return page.replace("/", "-")


def _moved(article, page, pages, here):
    """An article whose ids are its own in the whole book, and whose addresses hold in `here`."""
    slug, folder = _slug(page), posixpath.dirname(page)

    def address(match):
        kind, link = match[1], html.unescape(match[2])
        path, _, place = link.partition("#")
        if re.match(r"[a-z]+:|//", link):
            return match[0]
        there = posixpath.normpath(posixpath.join(folder, path)) if path else f"{page}.html"
        target = there.removesuffix(".html")
        if target in pages:
            moved = f"#{_slug(target)}--{place}" if place else f"#{_slug(target)}"
        else:
            moved = posixpath.relpath(there, here) + (f"#{place}" if place else "")
        return f'{kind}="{html.escape(moved)}"'

    article = re.sub(r'\b(href|src)="([^"]*)"', address, article)
    names = r'\b(id|for|aria-labelledby|aria-describedby|aria-controls)="([^"]+)"'
    return re.sub(names, lambda m: f'{m[1]}="{slug}--{m[2]}"', article)
