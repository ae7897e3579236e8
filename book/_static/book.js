/* Formulas shrink to a narrow column, down to 0.55 of their size. What scrolls sideways even so can be reached with the keyboard:
   tables, formulas, code; and fades out at the right until its end is reached. */
(function () {
  "use strict";
  function fit() {
    for (const box of document.querySelectorAll(".bd-article mjx-container[display]")) {
      box.style.zoom = "";
      if (box.scrollWidth > box.clientWidth) box.style.zoom = Math.max(0.55, 0.98 * box.clientWidth / box.scrollWidth);
    }
    reach();
  }
  function reach() {
    for (const box of document.querySelectorAll(".bd-article :is(table, mjx-container, pre, .scorecard-frame)")) {
      const needs = box.scrollWidth > box.clientWidth;
      if (needs && !("reach" in box.dataset)) {
        box.dataset.reach = box.hasAttribute("tabindex") ? "before" : "by us";
        box.setAttribute("tabindex", "0");
      } else if (!needs && "reach" in box.dataset) {
        if (box.dataset.reach === "by us") box.removeAttribute("tabindex");
        delete box.dataset.reach;
      }
      end(box);
    }
  }
  function end(box) {
    if ("reach" in box.dataset) box.toggleAttribute("data-end", box.scrollLeft + box.clientWidth >= box.scrollWidth - 2);
  }
  document.addEventListener("DOMContentLoaded", reach);
  window.addEventListener("resize", fit);
  document.addEventListener("scroll", (event) => event.target.dataset && end(event.target), true);
  document.addEventListener("toggle", reach, true); // what was closed had no width
  document.addEventListener("click", () => setTimeout(reach, 0));
  window.addEventListener("load", () => {
    const ready = window.MathJax && window.MathJax.startup && window.MathJax.startup.promise;
    if (ready) ready.then(fit);
    else reach();
  });
})();
