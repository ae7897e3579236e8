/* The tables of the scorecard: sort by a column, filter the rows. Without scripts they are plain, whole tables. */
(function () {
  "use strict";
  const CHOICES = ["table", "verdict", "chapter"]; // columns with a list to choose from

  function make(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  const words = (row, k) => row.cells[k].textContent.trim();

  /* What a text counts for: "5 of 6" as a fraction, "holds" as all, a number as itself; other words have none. */
  function size(text) {
    const part = text.match(/(\d+) of (\d+)/);
    if (part) return part[1] / part[2];
    return text === "holds" ? 1 : /^[+-]?\d/.test(text) ? parseFloat(text) : NaN;
  }

  /* Numbers by size, before words by the alphabet; what is empty stays last in both directions. */
  function compare(a, b, direction) {
    if (!a || !b) return (a ? 0 : 1) - (b ? 0 : 1);
    const [x, y] = [size(a), size(b)];
    if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
    if (x !== y && !Number.isNaN(x)) return direction * (x - y);
    return direction * a.localeCompare(b, "en", { numeric: true });
  }

  /* Each press on a head goes on: ascending, descending, and back to the order of the page. */
  function sortable(table, rows) {
    const heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach((head, k) => {
      const button = make("button", { type: "button", class: "scorecard-sort" }, head.textContent.trim());
      head.replaceChildren(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const next = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")];
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", next);
        const direction = { none: 0, ascending: 1, descending: -1 }[next];
        const order = direction ? rows.slice().sort((a, b) => compare(words(a, k), words(b, k), direction)) : rows;
        table.tBodies[0].append(...order);
      });
    });
  }

  function filters(table, rows, title) {
    const names = Array.from(table.tHead.rows[0].cells, (head) => head.textContent.trim());
    const search = make("input", { type: "search" });
    const count = make("p", { role: "status", class: "scorecard-count" });
    const lists = names.flatMap((name, k) => (CHOICES.includes(name) ? [[name, k]] : [])).map(([name, k]) => {
      const list = make("select", {}, make("option", { value: "" }, "all"));
      list.append(...[...new Set(rows.map((row) => words(row, k)))].map((value) => make("option", { value }, value)));
      return [name, k, list];
    });
    function update() {
      const asked = search.value.toLowerCase().split(/\s+/);
      let shown = 0;
      for (const row of rows) {
        const all = row.textContent.toLowerCase();
        row.hidden = !asked.every((word) => all.includes(word))
          || lists.some(([, k, list]) => list.value && words(row, k) !== list.value);
        shown += !row.hidden;
      }
      count.textContent = `${shown} of ${rows.length} rows`;
    }
    const controls = make("div", { class: "scorecard-controls", role: "group", "aria-label": `Filter: ${title}` },
      make("label", {}, "search ", search), ...lists.map(([name, , list]) => make("label", {}, `${name} `, list)), count);
    controls.addEventListener("input", update);
    table.before(controls);
    update();
  }

  document.addEventListener("DOMContentLoaded", () => {
    for (const table of document.querySelectorAll(".tag_scorecard table")) {
      const rows = Array.from(table.tBodies[0].rows);
      const title = table.closest("section").querySelector("h1, h2, h3").firstChild.textContent;
      filters(table, rows, title);
      sortable(table, rows);
      const frame = make("div", { class: "scorecard-frame", role: "region", "aria-label": title, tabindex: 0 });
      table.replaceWith(frame); // it scrolls sideways where the window is narrow, also by the arrow keys
      frame.append(table);
    }
  });
})();
