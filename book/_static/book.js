/* What scrolls sideways on a narrow screen can be reached with the keyboard: tables, formulas, code. */
(function () {
  "use strict";
  function reach() {
    for (const box of document.querySelectorAll(".bd-article table, .bd-article mjx-container, .bd-article pre")) {
      if (box.scrollWidth > box.clientWidth) box.setAttribute("tabindex", "0");
      else box.removeAttribute("tabindex");
    }
  }
  document.addEventListener("DOMContentLoaded", reach);
  window.addEventListener("resize", reach);
  window.addEventListener("load", () => {
    const ready = window.MathJax && window.MathJax.startup && window.MathJax.startup.promise;
    if (ready) ready.then(reach);
    else reach();
  });
})();
