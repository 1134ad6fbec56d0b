// Steps, failures, workers, and the block that was chosen.

import { $, clock, command, count, duration, h, keep, pill, shortly } from "./dom.js";

const cell = (...content) => h("td", { class: "n" }, ...content);

export function showSteps(steps, current, onChoose) {
  const items = steps.map((step) => ({ ...step, current: step.step === current }));
  keep($("steps").tBodies[0], items, (step) => step.run, (step) => {
    const name = h("button", { class: "link", title: "show on the map" }, step.step);
    const row = h("tr", { "aria-current": step.current ? "true" : null }, h("td", {}, name), h("td", {}, pill(step.state)));
    row.addEventListener("click", () => onChoose(step.step));
    row.append(...(step.blocks ? figures(step) : [h("td", { colspan: 8, class: "faint" }, "not started yet")]));
    return row;
  });
}

function figures(step) {
  const { blocks } = step, due = blocks.total - blocks.masked;
  const rate = step.rate_mvox_s ? shortly(step.rate_mvox_s) : "";
  const left = step.state !== "running" ? "" : step.eta_s === null ? "…" : duration(step.eta_s);
  const reason = step.reason && h("div", { class: "reason" }, step.reason);
  return [
    h("td", { class: "wide" }, progress(blocks, due), reason || null),
    cell(`${count(blocks.done)} / ${count(due)}`), cell(count(blocks.running)), cell(count(blocks.failed)),
    cell(count(blocks.quarantined)), cell(count(blocks.masked)), cell(rate), cell(left),
  ];
}

function progress(blocks, due) {
  const bar = h("div", { class: "bar", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": due, "aria-valuenow": blocks.done });
  for (const state of ["done", "running", "failed", "quarantined"]) {
    const part = h("i", { class: state });
    part.style.width = `${(100 * blocks[state]) / Math.max(due, 1)}%`;
    bar.append(part);
  }
  const percent = due ? Math.floor((100 * blocks.done) / due) : 100;
  return h("div", { class: "progress" }, bar, h("b", {}, `${percent} %`));
}

export function showFailures(failures, onBlock) {
  const blocks = failures.reduce((sum, failure) => sum + failure.blocks, 0);
  $("failures-count").textContent = failures.length ? `${count(blocks)} block${blocks === 1 ? "" : "s"} fail now` : "";
  if (!failures.length) return $("failures").replaceChildren(h("p", { class: "faint" }, "None."));
  const key = (f) => JSON.stringify([f.step, f.type, f.stage]);
  keep($("failures"), failures, key, (failure, before) => group(failure, before?.open ?? false, onBlock));
}

function group(failure, open, onBlock) {
  const tries = failure.tries ? `${count(failure.tries)} tries failed` : "";
  const numbers = [`${count(failure.blocks)} failing`, tries, failure.last && `last ${clock(failure.last)}`];
  const show = failure.block && h("button", { onclick: () => onBlock(failure.step, failure.block) }, `show block ${failure.block}`);
  const error = failure.type ?? "unknown error";
  return h("details", { open: open ? "" : null },
    h("summary", {},
      h("span", {}, h("span", { class: "error" }, error), h("span", { class: "faint" }, ` in ${failure.step}${failure.stage ? `, ${failure.stage}` : ""}`)),
      h("span", { class: "message" }, failure.message ?? ""),
      h("span", { class: "faint" }, numbers.filter(Boolean).join(" · "))),
    h("div", { class: "body" },
      h("p", {}, failure.message ?? ""),
      failure.replay ? command(failure.replay) : null,
      traceback(failure),
      failure.hosts.length ? h("p", { class: "faint" }, `seen on ${failure.hosts.join(", ")}`) : null,
      show ? h("p", {}, show) : null));
}

export function showWorkers(workers, states) {
  const parts = Object.entries(states).map(([state, n]) => `${count(n)} ${state}`);
  const listed = Object.values(states).reduce((sum, n) => sum + n, 0) > workers.length ? `; ${workers.length} shown` : "";
  $("workers-count").textContent = parts.join(", ") + listed;
  keep($("workers").tBodies[0], workers, (w) => w.worker, (w) => h("tr", {},
    h("td", {}, w.host ?? ""), h("td", {}, w.device ?? ""), h("td", {}, w.worker ?? ""),
    h("td", { title: w.reason }, pill(w.state)), h("td", { class: "wide" }, w.blocks.join(", ")), cell(count(w.done)),
    cell(count(w.failed)), cell(w.blocks_per_s === null ? "" : shortly(60 * w.blocks_per_s)),
    cell(w.heartbeat_age_s === null ? "" : `${duration(Math.max(0, w.heartbeat_age_s))} ago`)));
}

export function showBlock(details) {
  const record = details.record, error = record?.error;
  const seconds = Object.entries(record?.seconds ?? {}).map(([stage, s]) => `${stage} ${s.toFixed(2)} s`);
  const facts = {
    step: details.step, state: record?.state ?? "no record yet",
    offset: `${details.offset_nm.map((v) => Number(v.toFixed(3))).join(", ")} nm`,
    shape: `${details.shape.join(" × ")} voxels`, seconds: seconds.join(", "), attempts: record?.attempts,
    worker: record?.worker, host: record?.host, device: record?.device,
    finished: record?.finished && new Date(record.finished).toLocaleString("en-GB"),
    counts: Object.entries(record?.counts ?? {}).map(([name, n]) => `${name} ${n}`).join(", "),
    memory: record?.peak_memory_mb && `${record.peak_memory_mb} MB at most`,
  };
  const list = Object.entries(facts).filter(([, value]) => value !== undefined && value !== null && value !== "");
  $("block-title").textContent = `Block ${details.block}`;
  $("block").replaceChildren(
    h("dl", {}, ...list.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))])),
    ...(error ? [message(error)] : []),
    h("p", { class: "faint" }, "Do this block again in a terminal, changing nothing:"),
    command(details.replay),
    ...(error ? [traceback(error)] : []),
    ...details.attempts.slice(error ? 1 : 0).map(earlier));
}

const message = (error) => h("p", { class: "error" }, `${error.type ?? "unknown error"}: ${error.message ?? ""}`);

const traceback = (error) => error.traceback ? h("pre", { class: "traceback" }, error.traceback) : "";

function earlier(attempt) {
  const error = attempt.error ?? {};
  return h("details", {},
    h("summary", {}, `earlier try on ${attempt.host ?? "an unknown host"}: ${error.type ?? "unknown error"}`),
    message(error), traceback(error));
}
