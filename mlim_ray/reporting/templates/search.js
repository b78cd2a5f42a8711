// What a reader chose stays chosen when the page of a running search opens anew.
const chosen = history.state || {};
const keep = (changes) => history.replaceState(Object.assign(chosen, changes), "");

const trials = document.getElementById("all-trials");
if (trials) {
  const body = trials.tBodies[0];
  const headings = [...trials.querySelectorAll("th[data-column]")];
  const key = (row, column) => row.cells[column].dataset.value;
  // Rows without a figure stay at the end.
  const sort = (column, isAscending) => {
    const compare = (a, b) => {
      const [x, y] = [key(a, column), key(b, column)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return isAscending ? order : -order;
    };
    body.append(...[...body.rows].sort(compare));
    for (const heading of headings) heading.removeAttribute("aria-sort");
    headings[column].setAttribute("aria-sort", isAscending ? "ascending" : "descending");
  };
  headings.forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => {
    const isAscending = heading.getAttribute("aria-sort") !== "ascending";
    sort(column, isAscending);
    keep({ column, isAscending });
  }));

  const filter = document.getElementById("filter");
  const [text, state, role] = ["text", "state", "role"].map((name) => document.getElementById("filter-" + name));
  const apply = () => {
    const words = text.value.toLowerCase().split(/\s+/);
    let count = 0;
    for (const row of body.rows) {
      const found = (row.textContent + " " + row.title).toLowerCase();
      row.hidden = (state.value !== "" && row.dataset.state !== state.value)
        || (role.value !== "" && row.dataset.role !== role.value)
        || !words.every((word) => found.includes(word));
      count += !row.hidden;
    }
    document.getElementById("filter-count").value = count + " of " + body.rows.length + " shown";
    keep({ text: text.value, state: state.value, role: role.value });
  };
  for (const field of [text, state, role]) field.addEventListener("input", apply);
  filter.hidden = false;
  if (chosen.column < headings.length) sort(chosen.column, chosen.isAscending);
  for (const [field, value] of [[text, chosen.text], [state, chosen.state], [role, chosen.role]]) field.value = value || "";
  for (const field of [state, role]) if (field.selectedIndex < 0) field.value = "";
  apply();
}

// Dragging along an axis keeps the lines that pass there; a click on it lets all back.
const parallel = document.getElementById("parallel-svg");
if (parallel) {
  const lines = [...parallel.querySelectorAll("g[data-places]")]
    .map((line) => [line, line.dataset.places.split(" ").map(parseFloat)]);
  const told = document.getElementById("parallel-told");
  const ranges = new Map();
  const show = () => {
    let count = 0;
    for (const [line, places] of lines) {
      const isIn = [...ranges].every(([axis, [low, high]]) => places[axis] >= low && places[axis] <= high);
      line.classList.toggle("out", !isIn);
      count += isIn;
    }
    told.value = ranges.size ? count + " of " + lines.length + " trials pass the marked ranges." : "";
  };
  const height = (event) => {
    const point = new DOMPoint(event.clientX, event.clientY);
    return point.matrixTransform(parallel.getScreenCTM().inverse()).y;
  };
  parallel.querySelectorAll("g.axis").forEach((axis, number) => {
    const mark = axis.querySelector(".mark");
    const grip = axis.querySelector(".grip");
    let start = null;
    const drag = (event) => {
      const [low, high] = [start, height(event)].sort((a, b) => a - b);
      const isRange = high - low > 3;
      if (isRange) ranges.set(number, [low, high]); else ranges.delete(number);
      mark.setAttribute("y", low);
      mark.setAttribute("height", isRange ? high - low : 0);
      show();
    };
    grip.addEventListener("pointerdown", (event) => {
      start = height(event);
      grip.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    grip.addEventListener("pointermove", (event) => { if (start !== null) drag(event); });
    grip.addEventListener("pointerup", (event) => { drag(event); start = null; });
    grip.addEventListener("pointercancel", () => { start = null; });
  });
  parallel.addEventListener("pointerover", (event) => {
    const line = event.target.closest("g[data-places]");
    if (line) told.value = line.querySelector("title").textContent; else show();
  });
}
