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

function columns(told) {
  return [told.step, told.loss, told.validation];
}

async function drawCurve(place) {
  const answer = await fetch(place.dataset.curve);
  if (!answer.ok) return;
  const told = await answer.json();
  if (!told.step.length) return;
  if (place.plot) { place.plot.setData(columns(told)); return; }
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
  place.textContent = "";
  const width = () => Math.max(280, place.clientWidth);
  place.plot = new uPlot({
    width: width(), height: 260,
    scales: { x: { time: false } },
    axes: [{ ...axis, label: "step" }, { ...axis, label: "loss, nats per token" }],
    series: [
      { label: "step" },
      { label: "training", stroke: colour("--accent"), width: 1.5, spanGaps: true },
      { label: "validation", stroke: colour("--wait"), width: 0, points: { show: true, size: 7, fill: colour("--wait") } },
    ],
  }, columns(told), place);
  addEventListener("resize", () => place.plot.setSize({ width: width(), height: 260 }));
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
});
document.addEventListener("keydown", byKey);
document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});
// htmx may replace an element by itself: look at the whole page, what is done is marked.
document.addEventListener("htmx:afterSettle", () => localTimes(document));
addEventListener("pagehide", () => source?.close());
