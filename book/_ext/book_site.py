"""What the site needs beyond its theme: docstrings as they are written here, lighter pages, roles
still in use."""
import base64
import inspect
import re

import tinycss2
from fontTools import subset


def setup(app):
    app.connect("config-inited", count)
    app.connect("autodoc-process-docstring", as_written)
    # after the theme, which writes its colours of code at the end
    app.connect("build-finished", finish, priority=900)
    # then the parts that _config.yml names, a third less than all of it
    app.config.mathjax_path = "mathjax/startup.js"
    return {"parallel_read_safe": True}


def count(app, config):
    """`{{ progress }}` on a page: how many of the paper's numbers have been reproduced, from the
    records."""
    from sagelib.bench import scorecard

    config.myst_substitutions = {"progress": scorecard.progress_text(scorecard.book())}


def as_written(app, what, name, obj, options, lines):
    """Docstrings here are plain text: `code` between single backticks, lists that begin where they
    like, examples indented by four spaces after an empty line, and parameters ("sigma: ...")."""
    text, inside = [], None  # inside a list, or an example
    for line in parameters_listed(lines, _parameters(obj)):
        empty = not text or not text[-1].strip()
        if inside == "example" and (line.startswith("    ") or not line.strip()):
            text.append(line)
            continue
        if line.startswith("    ") and empty and inside is None:
            text += [".. code-block:: python", "", line]
            inside = "example"
            continue
        kind = "list" if line.startswith("- ") or (inside == "list"
                                                   and line.startswith("  ")) else None
        if line.strip() and kind != inside and not empty:
            text.append("")
        if line.strip():
            inside = kind
        text.append(_escaped(line))
    lines[:] = text


def parameters_listed(lines, names):
    """Lines in which each "sigma: ..." that begins a sentence, for one of these names, is an entry
    of a list."""
    if not names:
        return lines
    name = "|".join(map(re.escape, names))
    entry = re.compile(rf"(?:^|(?<=[.;:)]) )((?:{name})(?:, (?:{name}))*): ")
    found = []
    for paragraph in "\n".join(lines).split("\n\n"):
        first, *parts = entry.split(" ".join(paragraph.split("\n")))
        if not parts or paragraph.startswith(("    ", "- ")):
            found += [*paragraph.split("\n"), ""]
            continue
        found += [first, ""] if first else []
        for names_, said in zip(parts[::2], parts[1::2], strict=True):
            quoted = ", ".join(f"`{n}`" for n in names_.split(", "))
            found.append(f"- {quoted}: {re.sub(';$', '.', said)}")
        found.append("")
    return found


def _parameters(obj):
    try:
        return [*inspect.signature(obj).parameters]
    except (TypeError, ValueError):
        return []


def _escaped(line):
    parts = re.split(r"(`[^`]+`)", line)
    return "".join(f"`{part}`" + ("\\ " if re.match(r"\w", parts[k + 1]) else "") if k % 2
                   else re.sub(r"([*|_\\])", r"\\\1", part) for k, part in enumerate(parts))


def finish(app, exception):
    """Pages that load what they show: the theme brings a framework, icons twice and the search on
    every page."""
    if exception or app.builder.name != "html":
        return
    static = app.outdir / "_static"
    uncoloured = uncoloured_tokens((static / "pygments.css").read_text(encoding="utf-8"))
    pages = {page: page.read_text(encoding="utf-8") for page in app.outdir.rglob("*.html")}
    for page, old in pages.items():
        new = lighter(with_files(old, page.parent), page.name == "search.html", uncoloured)
        if new != old:
            page.write_text(new, encoding="utf-8")
    scripts = "\n".join(s.read_text(encoding="utf-8") for s in static.glob("**/*.js")
                        if "mathjax" not in s.relative_to(static).parts)
    names = set(re.findall(r"[\w-]+", "\n".join([*pages.values(), scripts
                                                 ]))) | {"bs-tooltip-auto", "bs-popover-auto"}
    # names that scripts put together, `explorer-${name}` or "explorer-" + name
    begins = tuple(set(re.findall(r"([a-zA-Z][\w-]*-)(?:\$\{|[\"'`]\s*\+)", scripts)))
    own = {file if isinstance(file, str) else file[0] for file in app.config.html_css_files}
    for sheet in static.glob("**/*.css"):
        if sheet.name not in own:
            text = sheet.read_text(encoding="utf-8")
            rules = tinycss2.parse_stylesheet(text, skip_comments=True, skip_whitespace=True)
            sheet.write_text(used(rules, lambda name: name in names or name.startswith(begins)),
                             encoding="utf-8")
    shown = "".join(sheet.read_text(encoding="utf-8") for sheet in static.glob("**/*.css"))
    coded = (chr(int(code, 16)) for code in re.findall(r"[\"']\\([0-9a-f]{2,6})\b", shown, re.I))
    icons = {*re.findall(r"[\ue000-\uf8ff]", shown), *coded}
    for font in (static / "vendor/fontawesome/webfonts").glob("*.ttf"):
        _only(font, icons)


def with_files(page, folder):
    """A page whose downloads, which a notebook carries in its links, are files in the folder beside
    it: they have an address, and are what the page shows."""
    def file(link):
        (folder / link["name"]).write_bytes(base64.b64decode(link["data"]))
        return f'href="{link["name"]}" download="{link["name"]}"'

    return re.sub(r'href="data:[a-z/]+;base64,(?P<data>[A-Za-z0-9+/=]*)" '
                  r'download="(?P<name>[a-z_]+\.[a-z]+)"', file, page)


SCRIPTS = {"explorer": "sage-explorer", "scorecard": "tag_scorecard"}  # and the class they work on


def lighter(page, searches, uncoloured=()):
    """One page: icons from the font alone, images when they are near, scripts and the search's
    index on the pages that use them, code without the spans of uncoloured tokens (a third of a
    chapter)."""
    page = re.sub(r"<(script|link)[^>]*fontawesome\.js[^>]*>(</script>)?", "", page)
    for script, used_by in SCRIPTS.items():
        if used_by not in page:
            page = re.sub(rf"<script[^>]*/{script}\.js[^>]*></script>\n?", "", page)
    if not searches:
        page = re.sub(r"<script[^>]*/?(searchtools|language_data|searchindex)\.js[^>]*></script>",
                      "", page)
    page = re.sub(r"<img (?![^>]*loading=)", '<img loading="lazy" ', page)
    page = re.sub(r'<dt class="sig .*?</dt>', lambda m: _plain_signature(m[0]), page, flags=re.S)
    if uncoloured:
        span = rf'<span class="(?:{"|".join(uncoloured)})">([^<]*)</span>'
        page = re.sub(r'<div class="highlight"><pre>.*?</pre>',
                      lambda m: re.sub(span, r"\1", m[0]), page, flags=re.S)
    # a citation's old role is one that browsers are to forget (DPUB-ARIA 1.1)
    page = page.replace(' role="doc-biblioentry"', "")
    return page.replace('<div role="list" class="citation-list">', '<div class="citation-list">')


def _plain_signature(signature):
    """A signature without the spans around single words, signs and spaces: a third of the page."""
    signature = signature.replace('<span class="w"> </span>', " ")
    for kind in ("pre", "p", "n"):  # the inner ones first
        signature = re.sub(rf'<span class="{kind}">([^<]*)</span>', r"\1", signature)
    return signature


def uncoloured_tokens(sheet):
    """Classes of Pygments' tokens, such as n for a name, that the style sheet shows like the text
    around them in every theme."""
    text = dict(re.findall(r"(\S+) \.highlight \{[^}]*[^-]color: (#\w+)", sheet))
    tokens = re.findall(r"(\S+) \.highlight \.(\w+) \{([^}]*)\}", sheet)
    shown = {(theme, token): rule.strip() for theme, token, rule in tokens}
    return [token for token in dict.fromkeys(token for _, token in shown) if text and all(
        shown.get((theme, token), f"color: {colour}") == f"color: {colour}"
        for theme, colour in text.items())]


def used(rules, known):
    """The rules of a style sheet that can apply: all classes of a selector are known to some page
    or script."""
    kept = []
    for rule in rules:
        if rule.type == "qualified-rule":
            prelude = tinycss2.serialize(rule.prelude)
            # :not(.a, .b), [src$=".png"] and their like are left alone
            whole = re.search(r"[(\[]", prelude)
            selectors = [prelude] if whole else [
                s for s in prelude.split(",")
                if all(map(known, re.findall(r"\.([A-Za-z_][\w-]*)", s)))]
            if selectors:
                kept.append(",".join(selectors) + "{" + tinycss2.serialize(rule.content) + "}")
        elif rule.type == "at-rule" and rule.content is not None and rule.lower_at_keyword in (
                "media", "supports"):
            inner = tinycss2.parse_rule_list(rule.content, skip_comments=True, skip_whitespace=True)
            kept.append(
                f"@{rule.at_keyword}{tinycss2.serialize(rule.prelude)}{{{used(inner, known)}}}")
        elif rule.type != "error":
            kept.append(rule.serialize())
    return "".join(kept)


def _only(font, characters):
    """A font with these characters alone, in the place of its .ttf and .woff2."""
    options = subset.Options(flavor="woff", ignore_missing_unicodes=True)
    made = subset.load_font(str(font), options)
    cut = subset.Subsetter(options)
    cut.populate(text="".join(characters))
    cut.subset(made)
    # a browser looks at the content, not at the name
    subset.save_font(made, str(font.with_suffix(".woff2")), options)
    font.unlink()
