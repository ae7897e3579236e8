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

  /* Numbers by size, before words by the alphabet; what is empty stays last in both directions. */
  function compare(a, b, direction) {
    if (!a || !b) return (a ? 0 : 1) - (b ? 0 : 1);
    const [x, y] = [parseFloat(a), parseFloat(b)];
    const numbers = [a, b].map((text) => /^[+-]?\d/.test(text));
    if (numbers[0] && numbers[1] && x !== y) return direction * (x - y);
    if (numbers[0] !== numbers[1]) return direction * (numbers[0] ? -1 : 1);
    return direction * a.localeCompare(b, "en", { numeric: true });
  }

  function sortable(table, rows) {
    const heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach((head, k) => {
      const button = make("button", { type: "button", class: "scorecard-sort" }, head.textContent.trim());
      head.replaceChildren(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
        const order = rows.slice().sort((a, b) => compare(words(a, k), words(b, k), direction));
        table.tBodies[0].append(...order);
      });
    });
  }

  function filters(table, rows) {
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
    const controls = make("div", { class: "scorecard-controls", role: "group", "aria-label": "Filter the table below" },
      make("label", {}, "search ", search), ...lists.map(([name, , list]) => make("label", {}, `${name} `, list)), count);
    controls.addEventListener("input", update);
    table.before(controls);
    update();
  }

  document.addEventListener("DOMContentLoaded", () => {
    for (const table of document.querySelectorAll(".tag_scorecard table")) {
      const rows = Array.from(table.tBodies[0].rows);
      filters(table, rows);
      sortable(table, rows);
      table.tabIndex = 0; // it scrolls sideways where the window is narrow
    }
  });
})();
