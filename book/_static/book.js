/* What scrolls sideways on a narrow screen can be reached with the keyboard: tables, formulas, code. */
(function () {
  "use strict";
  function reach() {
    for (const box of document.querySelectorAll(".bd-article table, .bd-article mjx-container, .bd-article pre")) {
      const needs = box.scrollWidth > box.clientWidth;
      if (needs && !box.hasAttribute("tabindex")) {
        box.setAttribute("tabindex", "0");
        box.dataset.reach = "";
      } else if (!needs && "reach" in box.dataset) {
        box.removeAttribute("tabindex");
        delete box.dataset.reach;
      }
    }
  }
  document.addEventListener("DOMContentLoaded", reach);
  window.addEventListener("resize", reach);
  document.addEventListener("toggle", reach, true); // what was closed had no width
  document.addEventListener("click", () => setTimeout(reach, 0));
  window.addEventListener("load", () => {
    const ready = window.MathJax && window.MathJax.startup && window.MathJax.startup.promise;
    if (ready) ready.then(reach);
    else reach();
  });
})();
