// Runs inside a copy of a page in a frame: does what a reader would, and hands what it saw to the page around it.
"use strict";
const seen = { errors: [], violations: [] };
addEventListener("error", (event) => seen.errors.push(event.message));
addEventListener("unhandledrejection", (event) => seen.errors.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => seen.violations.push(event.blockedURI));
// A made-up pointer cannot be captured.
Element.prototype.setPointerCapture = () => {};

addEventListener("load", () => setTimeout(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const root = document.documentElement;
  seen.requests = performance.getEntriesByType("resource").map((entry) => entry.name);
  seen.width = innerWidth;
  seen.overflow = root.scrollWidth - innerWidth;
  seen.wide = all("body *")
    .filter((part) => part.getBoundingClientRect().right > innerWidth + 1 && !part.closest(".scroll, pre, .js-plotly-plot"))
    .map((part) => part.tagName + "." + part.className + " " + part.textContent.trim().slice(0, 40));
  seen.charts = Object.fromEntries(all(".chart").map((chart) => [
    chart.id, all(".scatterlayer .point, .scatterlayer .js-line", chart).length,
  ]));
  seen.chartWidths = all(".chart").map((chart) => chart.querySelector("svg").clientWidth - chart.clientWidth);
  seen.parallel = all(".parallel .trial").filter((line) => line.getBBox().width > 0).length;
  seen.dots = all(".intervals .dot").length;
  const label = document.querySelector(".xtick text");
  seen.ink = label && getComputedStyle(label).fill;
  seen.paper = getComputedStyle(document.body).backgroundColor;

  const table = document.getElementById("all-trials");
  const column = (name) => all("th[data-column]", table).findIndex((heading) => heading.textContent.trim() === name);
  const values = (name) => all("tbody tr", table).map((row) => row.cells[column(name)].dataset.value);
  const heading = (name) => all("th[data-column]", table)[column(name)];
  seen.sorted = {};
  for (const name of ["samples", "role", "score"]) {
    const button = heading(name).querySelector("button");
    button.focus();
    seen.sorted[name] = { canFocus: document.activeElement === button, order: [] };
    for (let time = 0; time < 2; time++) {
      button.click();
      seen.sorted[name].order.push([heading(name).getAttribute("aria-sort"), values(name)]);
    }
  }
  const filter = (fields) => {
    for (const name of ["text", "state", "role"]) {
      const field = document.getElementById("filter-" + name);
      field.value = fields[name] || "";
      field.dispatchEvent(new Event("input"));
    }
    const shown = all("tbody tr", table).filter((row) => row.getClientRects().length > 0);
    return { trials: shown.map((row) => row.cells[0].textContent), told: document.getElementById("filter-count").value };
  };
  seen.filtered = {
    state: filter({ state: "failed" }),
    role: filter({ role: "paper's setting" }),
    text: filter({ text: "memory" }),
    both: filter({ text: "stopped MAM", role: "searched" }),
    none: filter({ text: "no such words" }),
    all: filter({}),
  };
  const axes = all(".parallel .axis");
  if (axes.length) {
    // The best quarter of the score's axis, which stands last.
    const grip = axes[axes.length - 1].querySelector(".grip");
    const box = grip.getBoundingClientRect();
    const pointer = (kind, share) => grip.dispatchEvent(new PointerEvent(kind, {
      bubbles: true, cancelable: true, clientX: box.left + box.width / 2, clientY: box.top + share * box.height,
    }));
    pointer("pointerdown", 0.75); pointer("pointermove", 1); pointer("pointerup", 1);
    seen.brushed = all(".parallel .trial:not(.out)").map((line) => line.dataset.trial);
    pointer("pointerdown", 0.5); pointer("pointerup", 0.5);
    seen.unbrushed = all(".parallel .trial:not(.out)").length;
  }
  seen.kept = history.state;
  parent.postMessage(JSON.stringify(seen), "*");
}, 50));
