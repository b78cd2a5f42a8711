"use strict";
// Charts name colours of the style sheet, so that they are right in light, in dark and on paper.
const charts = Object.entries(JSON.parse(document.getElementById("charts").textContent))
  .filter(([id]) => document.getElementById(id));
const draw = () => {
  const style = getComputedStyle(document.documentElement);
  const painted = (part) => {
    if (typeof part === "string") return part.startsWith("--chart-") ? style.getPropertyValue(part).trim() || part : part;
    if (Array.isArray(part)) return part.map(painted);
    if (part === null || typeof part !== "object") return part;
    return Object.fromEntries(Object.entries(part).map(([name, value]) => [name, painted(value)]));
  };
  for (const [id, chart] of charts) {
    const element = document.getElementById(id);
    const layout = { ...painted(chart.layout), width: element.clientWidth };
    Plotly.react(element, painted(chart.data), layout, { displayModeBar: false });
  }
};
draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
let width = innerWidth;
let waiting = 0;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  clearTimeout(waiting);
  waiting = setTimeout(draw, 150);
});
for (const [event, isOn] of [["beforeprint", true], ["afterprint", false]]) {
  addEventListener(event, () => {
    document.documentElement.classList.toggle("printing", isOn);
    draw();
  });
}
