/* The tables of the scorecard and the leaderboard: sort by a column, filter the rows, link to what is shown. Without scripts
   they are plain, whole tables. A view of a table is in the address: #view=…&search=…&only.verdict=…&sort=…&order=descending */
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

  /* Each press on a head goes on: ascending, descending, and back to the order of the page. Returns sort(name, direction). */
  function sortable(table, rows, changed) {
    const heads = Array.from(table.tHead.rows[0].cells);
    const names = heads.map((head) => head.textContent.trim());
    function sort(name, next) {
      const k = names.indexOf(name);
      heads.forEach((head, j) => head.setAttribute("aria-sort", j === k ? next : "none"));
      const direction = { ascending: 1, descending: -1 }[next];
      const order = k >= 0 && direction ? rows.slice().sort((a, b) => compare(words(a, k), words(b, k), direction)) : rows;
      table.tBodies[0].append(...order);
    }
    heads.forEach((head, k) => {
      const button = make("button", { type: "button", class: "scorecard-sort" }, names[k]);
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const next = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")];
        sort(names[k], next);
        changed(next === "none" ? {} : { sort: names[k], order: next });
      });
    });
    sort("", "none");
    return sort;
  }

  /* The heading above a table. */
  function heading(table) {
    const before = (other) => other.compareDocumentPosition(table) & Node.DOCUMENT_POSITION_FOLLOWING;
    return Array.from(table.closest("section").querySelectorAll("h1, h2, h3")).filter(before).pop();
  }

  function filters(table, rows, title, view) {
    let order = {};
    const sort = sortable(table, rows, (asked) => { order = asked; update(); });
    const link = make("a", { class: "scorecard-link", href: "" }, "link to this view");
    const names = Array.from(table.tHead.rows[0].cells, (head) => head.textContent.trim());
    const search = make("input", { type: "search" });
    const count = make("p", { role: "status", class: "scorecard-count" });
    const lists = names.flatMap((name, k) => (CHOICES.includes(name) ? [[name, k]] : [])).map(([name, k]) => {
      const list = make("select", {}, make("option", { value: "" }, "all"));
      list.append(...[...new Set(rows.map((row) => words(row, k)))].map((value) => make("option", { value }, value)));
      return [name, k, list];
    });
    function address() {
      const asked = new URLSearchParams({ view });
      if (search.value) asked.set("search", search.value);
      for (const [name, , list] of lists) if (list.value) asked.set(`only.${name}`, list.value);
      for (const key of Object.keys(order)) asked.set(key, order[key]);
      return `#${asked}`;
    }
    /* What the address asks of this table: once when the page opens, and when the address changes. */
    function read() {
      const asked = new URLSearchParams(location.hash.slice(1));
      if (asked.get("view") !== view) return;
      search.value = asked.get("search") || "";
      for (const [name, , list] of lists) {
        list.value = asked.get(`only.${name}`) || "";
        if (list.selectedIndex < 0) list.value = ""; // the table has no such entry today
      }
      const known = names.includes(asked.get("sort"));
      order = known ? { sort: asked.get("sort"), order: asked.get("order") === "descending" ? "descending" : "ascending" } : {};
      sort(order.sort, order.order);
      show();
      controls.scrollIntoView();
    }
    function update() {
      show();
      history.replaceState(null, "", address()); // also the way back to this page leads to what was shown
    }
    function show() {
      const asked = search.value.toLowerCase().split(/\s+/);
      let shown = 0;
      for (const row of rows) {
        const all = row.textContent.toLowerCase();
        row.hidden = !asked.every((word) => all.includes(word))
          || lists.some(([, k, list]) => list.value && words(row, k) !== list.value);
        shown += !row.hidden;
      }
      count.textContent = `${shown} of ${rows.length} rows`;
      link.setAttribute("href", address());
    }
    const controls = make("div", { class: "scorecard-controls", role: "group", "aria-label": `Filter: ${title}` },
      make("label", {}, "search ", search), ...lists.map(([name, , list]) => make("label", {}, `${name} `, list)), count, link);
    controls.addEventListener("input", update);
    window.addEventListener("hashchange", read);
    table.before(controls);
    show();
    return read;
  }

  document.addEventListener("DOMContentLoaded", () => {
    const readers = Array.from(document.querySelectorAll(".tag_scorecard table"), (table) => {
      const rows = Array.from(table.tBodies[0].rows);
      const head = heading(table);
      const title = head.firstChild.textContent;
      const read = filters(table, rows, title, head.id || head.closest("section").id);
      const frame = make("div", { class: "scorecard-frame", role: "region", "aria-label": title, tabindex: 0 });
      table.replaceWith(frame); // it scrolls sideways where the window is narrow, also by the arrow keys
      frame.append(table);
      return read;
    });
    readers.forEach((read) => read());
  });
})();
