# shellcheck shell=bash
# Sourced by ci/book and ci/test: the environment (ci/environment.py), the browser, the site.
say() { printf '\n== %s\n' "$*"; }
fail() { printf '\nFAILED: %s\n' "$*" >&2; exit 1; }

make_environment() {
  local python
  for python in python3.14 python3.13 python3.12 python3.11 python3 python; do
    "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
    python=""
  done
  [ -n "$python" ] || fail "Python 3.11 or newer with venv is needed (on Debian: apt-get install python3 python3-venv)"
  say "the environment: .venv, on packages that all checkouts share"
  "$python" ci/environment.py || fail "the environment, see above"
  PATH="$PWD/.venv/bin:$PATH"
  export PATH PYDEVD_DISABLE_FILE_VALIDATION=1 JUPYTER_PLATFORM_DIRS=1
  unset PYTHONDONTWRITEBYTECODE # pip compiles nothing (ci/environment.py): each process would compile its imports anew
}

# The browser of the tests: one that is there, or Debian's, or playwright's own.
find_chromium() {
  local name
  for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome; do
    [ -n "$name" ] && CHROMIUM=$(command -v "$name") && export CHROMIUM && return
  done
  say "installing Chromium for the browser test"
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update && apt-get install -y --no-install-recommends chromium; } >.venv/chromium.log 2>&1 || tail -3 .venv/chromium.log
  else
    playwright install chromium >.venv/chromium.log 2>&1 || tail -3 .venv/chromium.log
  fi
  CHROMIUM=$(command -v chromium || python -c 'from playwright.sync_api import sync_playwright as p
with p() as q: print(q.chromium.executable_path)')
  [ -x "$CHROMIUM" ] || fail "no Chromium found: install it (Debian: apt-get install chromium) or set CHROMIUM to its path"
  export CHROMIUM
}

# stage_site FOLDER: what the site is built from, copied into a new FOLDER.
stage_site() {
  rm -rf "$1" && mkdir -p "$1/book"
  cp -r book/*.md book/*.yml book/*.bib book/*.jpg book/_ext book/_static book/results "$1/book" && cp -r notebooks "$1"
}

# launch_links CONFIG: Colab and Binder on every notebook's page, where the project lies on GitHub: as its origin says, or
# REPOSITORY=https://github.com/NAME/PROJECT. Without it the site names no place that is not there.
launch_links() {
  local url=${REPOSITORY:-$(git remote get-url origin 2>/dev/null || true)}
  url=${url%/}
  url=${url%.git}
  case "$url" in *git@github.com[:/]*) url="https://github.com/${url#*git@github.com[:/]}" ;; esac
  case "$url" in https://github.com/*/*) ;; *) return 0 ;; esac
  python - "$1" "$url" <<'EOF'
import sys
from pathlib import Path
config, url = Path(sys.argv[1]), sys.argv[2]
places = "{notebook_interface: jupyterlab, binderhub_url: 'https://mybinder.org', colab_url: 'https://colab.research.google.com'}"
options = {"repository_url": url, "repository_branch": "main", "path_to_docs": "''", "launch_buttons": places}
head = "    html_theme_options:\n"
lines = "".join(f"      {name}: {value}\n" for name, value in options.items())
text = config.read_text(encoding="utf-8")
if head not in text:
    sys.exit(f"{config} has no line html_theme_options: the launch links cannot be put there")
if "launch_buttons" not in text:
    config.write_text(text.replace(head, head + lines), encoding="utf-8")
EOF
}

# build_site SOURCE: the strict Jupyter Book of a tree that holds book/ and notebooks/, under SOURCE/book/_build/html.
build_site() {
  launch_links "$1/book/_config.yml"
  (cd "$1" && jupyter-book build . --all --config book/_config.yml --toc book/_toc.yml --path-output book -W) \
    > "$1/build.log" 2>&1 || { tail -40 "$1/build.log"; fail "the site, see above"; }
  cp -r "$1/book/results" "$1/book/_build/html/book/"  # the records and their executed notebooks, which pages link to
}
