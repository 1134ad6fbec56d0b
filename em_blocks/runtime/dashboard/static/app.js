// Asks how the run stands, every two seconds while the page is visible, and shows it.

import { BlockMap, unpack } from "./map.js";
import { $, clock, keep, h } from "./dom.js";
import { showBlock, showFailures, showSteps, showWorkers } from "./tables.js";

const PERIOD_MS = 2000;
const chosen = { step: null, z: 0, block: null };
let overview = null, shown = {}, busy = false;

const map = new BlockMap((block) => chooseBlock(chosen.step, block), (by) => chooseSection(chosen.z + by));

const step = () => overview?.steps.find((s) => s.step === chosen.step);

async function ask(path, values = {}) {
  const answer = await fetch(`api/${path}?${new URLSearchParams(values)}`, { cache: "no-cache" });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error);
  return body;
}

async function look() {
  if (busy || document.hidden) return;
  busy = true;
  try {
    overview = await ask("overview");
    showOverview();
    await lookAtBlocks();
  } catch (error) {
    banner(overview?.away ? null : `The dashboard does not answer (${error.message}). It is asked again every 2 s.`);
  } finally {
    busy = false;
  }
}

function showOverview() {
  const { steps, away, looked } = overview;
  document.title = $("title").textContent = overview.title;
  const state = stateOfAll(steps);
  $("state").textContent = state;
  $("state").className = `pill ${state}`;
  $("looked").textContent = looked ? `as of ${clock(looked)}` : "";
  const still = looked ? ` This is how things stood at ${clock(looked)}.` : "";
  const what = looked ? "The database does not answer since" : "Waiting for the database since";
  banner(away && `${what} ${clock(away.since)}: ${away.message}${still}`);
  if (!step()) chooseStep((steps.find((s) => s.state === "running") ?? steps.find((s) => s.blocks))?.step ?? null, false);
  showSteps(steps, chosen.step, chooseStep);
  showFailures(overview.failures, (name, block) => { chooseStep(name, false); chooseBlock(name, block); });
  showWorkers(overview.workers, overview.worker_states);
  showSlider();
}

function stateOfAll(steps) {
  const states = new Set(steps.map((s) => s.state));
  for (const state of ["running", "failed", "stopped"]) if (states.has(state)) return state;
  return states.size === 1 ? [...states][0] : states.size ? "waiting" : "";
}

function banner(text) {
  $("banner").hidden = !text;
  if (text && $("banner").textContent !== text) $("banner").textContent = text;
}

function showSlider() {
  const grid = step()?.grid, last = (grid?.shape[0] ?? 1) - 1, failing = step()?.failing_sections ?? [];
  $("z").max = last;
  chosen.z = Math.min(chosen.z, last);
  $("z").value = chosen.z;
  $("z-value").textContent = `${chosen.z} of 0 … ${last}`;
  $("next-failed").hidden = !failing.length;
  $("map-step").textContent = chosen.step ? `of ${chosen.step}` : "";
  const marks = failing.slice(0, 500).map((z) => ({ at: `${(100 * z) / Math.max(last, 1)}%` }));
  keep($("marks"), marks, (mark) => mark.at, ({ at }) => { const i = h("i"); i.style.left = at; return i; });
}

async function lookAtBlocks() {
  const { grid } = step() ?? {}, asked = `${chosen.step} ${chosen.z}`;
  $("map-note").textContent = grid ? "" : "No block has a record yet.";
  if (!grid) return map.show(null, null);
  if (overview.away) return;
  const section = await ask("map", { step: chosen.step, z: chosen.z });
  if (asked !== `${chosen.step} ${chosen.z}`) return; // the slider has moved on
  const said = JSON.stringify([asked, section]);
  if (shown.section !== said) {
    shown.section = said;
    map.show(unpack(section), grid);
  }
  if (chosen.block) await lookAtBlock();
}

async function lookAtBlock() {
  const block = chosen.block, details = await ask("block", { step: chosen.step, block });
  const said = JSON.stringify(details);
  if (block !== chosen.block || shown.block === said) return;
  shown.block = said;
  showBlock(details);
}

function chooseStep(name, look = true) {
  if (name !== chosen.step) {
    Object.assign(chosen, { step: name, block: null });
    map.chosen = null;
    shown = {};
    const failing = step()?.failing_sections ?? [];
    chosen.z = failing[0] ?? 0;
    $("block-title").textContent = "Block";
    $("block").replaceChildren(h("p", { class: "faint" }, "Click a block of the map."));
  }
  if (look) redraw();
}

function chooseSection(z) {
  chosen.z = Math.min(Math.max(z, 0), Number($("z").max));
  redraw();
}

function chooseBlock(name, block) {
  chosen.block = block;
  map.chosen = block.split("/").map(Number);
  chosen.z = map.chosen[0];
  redraw();
}

// Show a choice at once, not with the next look.
function redraw() {
  showSteps(overview.steps, chosen.step, chooseStep);
  showSlider();
  map.draw();
  lookAtBlocks().catch((error) => banner(error.message));
}

$("z").addEventListener("input", () => chooseSection(Number($("z").value)));
$("next-failed").addEventListener("click", () => {
  const failing = step().failing_sections;
  chooseSection(failing.find((z) => z > chosen.z) ?? failing[0]);
});
$("colours").addEventListener("change", (event) => { map.by = event.target.value; map.draw(); });
document.addEventListener("visibilitychange", look);
setInterval(look, PERIOD_MS);
look();
