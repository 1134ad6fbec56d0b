// Recorded trainings: asked for every five seconds while the page is visible.

import { COLOURS, chart } from "./chart.js";
import { $, clock, h, keep, pill, shortly } from "./dom.js";

const PERIOD_MS = 5000;
const chosen = new Set();
let trainings = [], curves = {}, pictures = [], differences = {}, shown = "", busy = false, begun = false;

const colour = (key) => COLOURS[Math.max(0, trainings.findIndex((t) => t.key === key)) % COLOURS.length];
const picked = () => trainings.filter((t) => chosen.has(t.key));

async function ask(path, runs = []) {
  const query = new URLSearchParams(runs.map((key) => ["run", key]));
  const answer = await fetch(`api/${path}?${query}`, { cache: "no-cache" });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error);
  return body;
}

async function look() {
  if (busy || document.hidden) return;
  busy = true;
  try {
    trainings = await ask("trainings");
    if (!begun && trainings.length) chosen.add(trainings.at(-1).key);
    begun = true;
    showTrainings();
    await lookAtChosen();
    $("looked").textContent = `as of ${clock(Date.now())}`;
    banner(trainings.length ? "" : "No training is recorded here yet.");
  } catch (error) {
    banner(`There is no answer (${error.message}). It is asked again every 5 s.`);
  } finally {
    busy = false;
  }
}

// Curves, pictures and differences are asked for only when something is new.
async function lookAtChosen() {
  const runs = picked().map((t) => t.key);
  const said = JSON.stringify(picked());
  if (said === shown && !picked().some((t) => t.state === "running")) return;
  const asked = await Promise.all(["curves", "pictures", "differences"].map((path) => ask(path, runs)));
  [curves, pictures, differences] = asked;
  shown = said;
  showCurves();
  showPictures();
  showDifferences();
}

function banner(text) {
  $("banner").hidden = !text;
  if ($("banner").textContent !== text) $("banner").textContent = text;
}

function showTrainings() {
  keep($("runs").tBodies[0], trainings, (t) => t.key, (t) => {
    const box = h("input", { type: "checkbox", "aria-label": `compare ${t.label}`, value: t.key });
    box.checked = chosen.has(t.key);
    box.addEventListener("change", () => {
      if (box.checked) chosen.add(t.key);
      else chosen.delete(t.key);
      lookAtChosen().catch((error) => banner(error.message));
    });
    const swatch = h("span", { class: "swatch" });
    swatch.style.background = colour(t.key);
    return h("tr", {},
      h("td", {}, box, " ", swatch), h("td", {}, t.id === null ? "" : String(t.id)), h("td", {}, t.setup),
      h("td", {}, pill(t.state)), h("td", { class: "n" }, `${t.iteration} / ${t.iterations}`),
      h("td", {}, t.best ? `${t.best.score} ${shortly(t.best.value)}` : ""),
      h("td", { class: "n" }, t.best ? String(t.best.iteration) : ""),
      h("td", {}, (t.started ?? "").slice(0, 16).replace("T", " ")), h("td", {}, t.host ?? ""),
      h("td", { class: "wide faint" }, t.folder));
  });
}

function wanted(name) {
  const filter = $("filter").value.trim();
  if (filter) return filter.split(/[\s,;]+/).some((part) => name.includes(part));
  return name === "train/loss" || picked().some((t) => t.best && name === `validation/${t.best.score}`);
}

function showCurves() {
  const options = { smooth: Math.max(1, Number($("smooth").value) || 1), log: $("log").checked };
  const figures = Object.entries(curves).filter(([name]) => wanted(name)).map(([name, lines]) => chart(
    name, picked().filter((t) => lines[t.key]).map((t) => ({ key: t.key, label: t.label, colour: colour(t.key), ...lines[t.key] })),
    options));
  const none = Object.keys(curves).length
    ? `No curve has that name. There are: ${Object.keys(curves).join(", ")}.` : "Choose a training.";
  $("curves").replaceChildren(...(figures.length ? figures : [h("p", { class: "faint" }, none)]));
}

function showPictures() {
  const iterations = [...new Set(pictures.map((p) => p.iteration))].sort((a, b) => b - a);
  const before = $("iteration").value;
  $("iteration").replaceChildren(h("option", { value: "" }, "newest"),
    ...iterations.map((n) => h("option", { value: String(n) }, String(n))));
  if (iterations.map(String).includes(before)) $("iteration").value = before;
  drawPictures();
}

function drawPictures() {
  const at = $("iteration").value, newest = new Map();
  for (const p of pictures) { // the newest last
    if (!at || p.iteration === Number(at)) newest.set(`${p.run} ${p.name}`, p);
  }
  const items = [...newest.values()];
  keep($("pictures"), items, (p) => `${p.run} ${p.path}`, (p) => {
    const label = trainings.find((t) => t.key === p.run)?.label ?? p.run;
    const query = new URLSearchParams({ run: p.run, path: p.path });
    return h("figure", {}, h("img", { src: `api/picture?${query}`, alt: `${p.name} of ${label}`, loading: "lazy" }),
      h("figcaption", {}, `${label}: ${p.name}, iteration ${p.iteration}`));
  });
  if (!items.length) $("pictures").replaceChildren(h("p", { class: "faint" }, "None in the folders of the chosen trainings."));
}

function showDifferences() {
  const rows = Object.entries(differences), runs = picked();
  const head = runs.length > 1 && rows.length ? [h("tr", {}, h("th", {}, "key"), ...runs.map((t) => h("th", {}, t.label)))] : [];
  $("differences").tHead.replaceChildren(...head);
  $("differences").tBodies[0].replaceChildren(...rows.map(([key, values]) =>
    h("tr", {}, h("td", {}, key), ...values.map((v) => h("td", {}, typeof v === "string" ? v : JSON.stringify(v))))));
  $("differences-note").textContent = runs.length < 2 ? "Choose two trainings or more."
    : rows.length ? "" : "Their settings, data and code do not differ.";
}

for (const id of ["filter", "smooth", "log"]) $(id).addEventListener("input", showCurves);
$("iteration").addEventListener("change", drawPictures);
document.addEventListener("visibilitychange", look);
setInterval(look, PERIOD_MS);
look();
