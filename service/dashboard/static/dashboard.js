// What pages can't do without a script: times in the reader's zone, live jobs, curves, uploads, keys.
"use strict";

const csrf = () => JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRF-Token"];

function localTimes(root) {
  const format = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "medium" });
  for (const time of root.querySelectorAll("time[datetime]:not([title])")) {
    time.title = time.textContent;
    time.textContent = format.format(new Date(time.dateTime));
  }
}

// A job's news: each message asks for the part of the page that moves, at most once a second.
let source = null;
function follow() {
  const live = document.querySelector("#live[data-stream]");
  if (!live || source) return;
  source = new EventSource(live.dataset.stream);
  let timer = null;
  source.onmessage = (message) => {
    if (message.data === "over") { source.close(); }
    timer ??= setTimeout(() => {
      timer = null;
      htmx.trigger("#live", "refresh");
      document.querySelectorAll("[data-curve]").forEach(drawCurve);
    }, message.data === "over" ? 0 : 1000);
  };
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const SERIES = ["--accent", "--wait", "--bad", "--good", "--quiet"];

// A training's figures: a plot for each panel; lines for training, points for validation.
async function drawCurve(place) {
  const answer = await fetch(place.dataset.curve);
  if (!answer.ok) return;
  const told = await answer.json();
  if (!told.step.length) return;
  if (place.plots?.length !== told.panels.length) {
    place.plots?.forEach((plot) => plot.destroy());
    place.textContent = "";
    place.plots = told.panels.map((panel) => plotPanel(place, told.step, panel));
  } else {
    told.panels.forEach((panel, number) => place.plots[number].setData(columns(told.step, panel)));
  }
}

const columns = (steps, panel) => [steps, ...panel.series.map((one) => one.values)];

function plotPanel(place, steps, panel) {
  const figure = place.appendChild(document.createElement("figure"));
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 }, font: "11px system-ui", labelFont: "11px system-ui", labelSize: 20 };
  const size = () => ({ width: Math.max(260, figure.clientWidth), height: 230 });
  const short = (plot, values) => values.map((value) => value === 0 ? "0" : Math.abs(value) < 1e-3 ? value.toExponential(0) : String(+value.toPrecision(4)));
  const series = panel.series.map((one, number) => {
    const drawn = colour(SERIES[number % SERIES.length]);
    const points = one.points ? { show: true, size: 7, fill: drawn } : { show: steps.length === 1 };
    return { label: one.name, stroke: drawn, width: one.points ? 0 : 1.5, spanGaps: true, points, value: (plot, value) => value === null ? "–" : +value.toPrecision(4) };
  });
  const plot = new uPlot({
    ...size(),
    scales: { x: { time: false } },
    axes: [{ ...axis, label: "step", size: 34 }, { ...axis, label: panel.label, values: short, size: 56 }],
    series: [{ label: "step" }, ...series],
  }, columns(steps, panel), figure);
  addEventListener("resize", () => plot.setSize(size()));
  return plot;
}

// Rows by keyboard: j and k go on and back, other letters press the row's button of that key.
const rowAt = (element) => element?.closest?.("[data-row]");
function walk(rows, here, by) {
  const next = rows[here ? rows.indexOf(here) + by : by > 0 ? 0 : rows.length - 1];
  if (next) { next.focus({ preventScroll: true }); next.scrollIntoView({ block: "nearest" }); }
  else if (by > 0) document.querySelector("a[rel=next]")?.click();
}
function byKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select")) return;
  const rows = [...document.querySelectorAll("[data-row]")], here = rowAt(document.activeElement);
  if (!rows.length) return;
  if (event.key === "j" || event.key === "k") { walk(rows, here, event.key === "j" ? 1 : -1); return; }
  const button = here && [...here.querySelectorAll("[data-key]")].find((one) => one.dataset.key === event.key);
  if (!button) return;
  button.click();
  if (event.key !== "u" && rows.at(-1) !== here) walk(rows, here, 1);
}

async function upload(event) {
  event.preventDefault();
  const form = event.target, file = form.file.files[0], said = form.querySelector("output");
  const query = new URLSearchParams({ name: file.name, purpose: form.purpose.value });
  said.textContent = "uploads …";
  const answer = await fetch(`${form.dataset.upload}?${query}`, {
    method: "POST", body: file,
    headers: { "X-CSRF-Token": csrf(), "Content-Type": "application/octet-stream", "Accept": "text/html" },
  });
  if (answer.ok) { location.reload(); return; }
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  said.textContent = page.querySelector(".problem")?.innerText ?? `refused: ${answer.status}`;
}

document.addEventListener("DOMContentLoaded", () => {
  localTimes(document);
  follow();
  document.querySelectorAll("[data-curve]").forEach(drawCurve);
  document.querySelectorAll("form[data-upload]").forEach((form) => form.addEventListener("submit", upload));
  // Not before htmx has taken over the forms: a key would send one as a page of its own.
  document.addEventListener("keydown", byKey);
});
document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});
// htmx may replace an element by itself: look at the whole page, what is done is marked.
document.addEventListener("htmx:afterSettle", () => localTimes(document));
addEventListener("pagehide", () => source?.close());
