/* Comforts for readers. A link to an equation, a citation or a term of the glossary shows its target while the pointer or the
   keyboard is on it; Escape closes it. One button opens and closes all solutions of a chapter. Nothing is needed from another host. */
(function () {
  "use strict";
  const LINK = ".bd-article a.reference.internal[href*='#']";
  const pages = new Map(); // address -> its document, once asked for
  let box = null; // the preview that is shown
  let owner = null; // its link
  let wait = 0;

  function pageOf(url) {
    const address = url.origin + url.pathname + url.search;
    if (address === location.origin + location.pathname + location.search) return Promise.resolve(document);
    if (!pages.has(address)) {
      pages.set(address, fetch(address).then((answer) => answer.text())
        .then((text) => new DOMParser().parseFromString(text, "text/html")).catch(() => null));
    }
    return pages.get(address);
  }

  /* What a preview shows of the element that a link leads to; null for headings, files and the like. */
  function shownOf(target) {
    if (!target) return null;
    if (target.matches("dt")) return [target, target.nextElementSibling];
    const whole = target.closest("div.math, div.citation");
    return whole ? [whole] : null;
  }

  async function show(link) {
    const url = new URL(link.href);
    const page = await pageOf(url);
    const shown = page && shownOf(page.getElementById(decodeURIComponent(url.hash.slice(1))));
    if (!shown || owner !== link) return;
    box = document.createElement("div");
    box.className = "reading-preview";
    box.id = "reading-preview";
    box.setAttribute("role", "tooltip");
    for (const part of shown) box.append(document.importNode(part, true));
    for (const part of box.querySelectorAll("[id], a")) part.removeAttribute("id");
    for (const part of box.querySelectorAll(".headerlink, .backrefs, .label, .eqno")) part.remove();
    for (const part of box.querySelectorAll("a")) part.replaceWith(...part.childNodes); // one cannot get at them
    document.querySelector(".bd-article").append(box);
    link.setAttribute("aria-describedby", box.id);
    if (!box.querySelector("mjx-container") && window.MathJax && MathJax.typesetPromise) await MathJax.typesetPromise([box]);
    if (box) place(link);
  }

  function place(link) {
    const at = link.getClientRects()[0] || link.getBoundingClientRect();
    const room = document.documentElement.clientWidth;
    box.style.left = `${Math.max(8, Math.min(at.left, room - box.offsetWidth - 8)) + scrollX}px`;
    const above = at.top - box.offsetHeight - 6;
    box.style.top = `${(above > 0 ? above : at.bottom + 6) + scrollY}px`;
  }

  function close() {
    clearTimeout(wait);
    if (owner) {
      owner.removeAttribute("aria-describedby");
      if (owner.dataset.title) owner.title = owner.dataset.title;
    }
    if (box) box.remove();
    box = owner = null;
  }

  function open(event, milliseconds) {
    const link = event.target.closest && event.target.closest(LINK);
    if (!link || link === owner) return;
    close();
    owner = link;
    if (link.title) link.dataset.title = link.title; // the browser would show it beside the preview
    link.removeAttribute("title");
    wait = setTimeout(() => show(link), milliseconds);
  }

  document.addEventListener("pointerover", (event) => event.pointerType !== "touch" && open(event, 150));
  document.addEventListener("focusin", (event) => open(event, 0));
  document.addEventListener("pointerout", (event) => owner && event.target.closest && event.target.closest("a") === owner && close());
  document.addEventListener("focusout", close);
  document.addEventListener("keydown", (event) => event.key === "Escape" && close());

  document.addEventListener("DOMContentLoaded", () => {
    const heading = document.querySelector("section#exercises > h2");
    const solutions = [...document.querySelectorAll("section#exercises details")];
    if (!heading || !solutions.length) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "reading-solutions";
    const say = () => { button.textContent = solutions.every((one) => one.open) ? "Hide all solutions" : "Show all solutions"; };
    button.addEventListener("click", () => {
      const opened = !solutions.every((one) => one.open);
      for (const one of solutions) one.open = opened;
    });
    for (const one of solutions) one.addEventListener("toggle", say);
    say();
    heading.after(button);
  });
})();
