"use strict";
for (const [id, chart] of Object.entries(JSON.parse(document.getElementById("charts").textContent))) {
  const element = document.getElementById(id);
  if (element) Plotly.newPlot(element, chart.data, chart.layout, { responsive: true, displayModeBar: false });
}

// A click on a heading sorts by its column; rows without a figure stay at the end.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = table.querySelectorAll("th[data-column]");
  const sort = (heading) => {
    const column = Number(heading.dataset.column);
    const ascending = heading.getAttribute("aria-sort") !== "ascending";
    const key = (row) => row.cells[column].dataset.value;
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return ascending ? order : -order;
    };
    body.append(...[...body.rows].sort(compare));
    for (const other of headings) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  };
  for (const heading of headings) {
    heading.tabIndex = 0;
    heading.addEventListener("click", () => sort(heading));
    heading.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(heading); }
    });
  }
}
