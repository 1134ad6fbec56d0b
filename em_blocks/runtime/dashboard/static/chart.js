// Line diagrams as SVG. Text reaches the document as text nodes only.

import { h, shortly } from "./dom.js";

const WIDTH = 460, HEIGHT = 240, LEFT = 52, RIGHT = 8, TOP = 8, BOTTOM = 24;

// Told apart with every kind of colour vision: Okabe and Ito.
export const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8a8a"];

function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// Mean of the last n points that are numbers.
export function smoothed(values, n) {
  return values.map((_, end) => {
    const known = values.slice(Math.max(0, end - n + 1), end + 1).filter((v) => v !== null);
    return known.length ? known.reduce((a, b) => a + b, 0) / known.length : null;
  });
}

// About n round numbers from low to high.
export function ticks(low, high, n = 5) {
  const rough = (high - low) / n, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high + step * 1e-9; k++) found.push(Number((k * step).toPrecision(12)));
  return found;
}

// lines: [{key, label, colour, steps, values}]
export function chart(name, lines, { smooth = 1, log = false } = {}) {
  const shown = lines.map((line) => ({ ...line, drawn: smooth > 1 && line.values.length > smooth ? smoothed(line.values, smooth) : line.values }));
  const usable = (v) => v !== null && (!log || v > 0);
  const values = shown.flatMap((line) => line.values.filter(usable)), steps = shown.flatMap((line) => line.steps);
  const figure = h("figure", { "data-name": name }, h("figcaption", {}, name));
  if (!values.length) return figure.append(h("p", { class: "faint" }, "no values")), figure;
  const scale = (v) => (log ? Math.log10(v) : v);
  const [x0, x1] = range(steps), [y0, y1] = range(values.map(scale));
  const x = (step) => LEFT + ((step - x0) / (x1 - x0)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - ((scale(value) - y0) / (y1 - y0)) * (HEIGHT - TOP - BOTTOM);
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": name });
  for (const tick of ticks(y0, y1)) {
    const at = y(log ? 10 ** tick : tick);
    picture.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: at, y2: at }),
      svg("text", { x: LEFT - 6, y: at + 4, "text-anchor": "end" }, shortly(log ? 10 ** tick : tick)));
  }
  for (const tick of ticks(x0, x1)) {
    picture.append(svg("text", { x: x(tick), y: HEIGHT - 6, "text-anchor": "middle" }, String(tick)));
  }
  for (const line of shown) {
    if (line.drawn !== line.values) draw(picture, line, line.values, "measured");
    draw(picture, line, line.drawn, "line");
  }
  const said = h("div", { class: "values" });
  hover(picture, shown, { x, x0, x1 }, said);
  figure.append(picture, said);
  return figure;

  function draw(picture, line, values, kind) {
    let points = [];
    const end = () => {
      if (points.length) {
        const drawn = points.length > 1 ? points : [points[0], points[0]]; // a dot
        picture.append(svg("polyline", { class: kind, "data-key": line.key, stroke: line.colour,
          "stroke-linecap": "round", points: drawn.map((p) => p.map((n) => n.toFixed(1)).join(",")).join(" ") }));
      }
      points = [];
    };
    values.forEach((value, n) => (usable(value) ? points.push([x(line.steps[n]), y(value)]) : end()));
    end();
  }
}

function range(values) {
  const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
  const margin = high > low ? 0.03 * (high - low) : Math.abs(low) * 0.1 || 1;
  return [low - margin, high + margin];
}

// The values at the step under the pointer.
function hover(picture, lines, { x, x0, x1 }, said) {
  const at = svg("line", { class: "at", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  picture.append(at);
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const inside = ((event.clientX - box.left) / box.width) * WIDTH;
    const step = x0 + ((inside - LEFT) / (WIDTH - LEFT - RIGHT)) * (x1 - x0);
    const near = lines.map((line) => ({ line, n: nearest(line.steps, step) })).filter(({ n }) => n >= 0);
    if (!near.length) return;
    const first = near[0].line.steps[near[0].n];
    for (const side of ["x1", "x2"]) at.setAttribute(side, x(first));
    at.setAttribute("visibility", "visible");
    said.textContent = `at ${first}\n` +
      near.map(({ line, n }) => `${line.label}: ${shortly(line.drawn[n]) || "no number"}`).join("\n");
  });
  picture.addEventListener("pointerleave", () => { at.setAttribute("visibility", "hidden"); said.textContent = ""; });
}

function nearest(steps, step) {
  let best = -1;
  steps.forEach((s, n) => { if (best < 0 || Math.abs(s - step) < Math.abs(steps[best] - step)) best = n; });
  return best;
}
