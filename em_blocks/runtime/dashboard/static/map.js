// One section of the block grid on a canvas.

import { STATES, chosenColour, colouring, glyphColour, glyphOf, rgb } from "./colours.js";
import { $, h } from "./dom.js";

const LARGEST = 46, LINES_FROM = 6, GLYPHS_FROM = 5, LEAST = 3;

export function unpack(answer) {
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return {
    ...answer, state: bytes(answer.state), attempts: bytes(answer.attempts),
    seconds: new Float32Array(bytes(answer.seconds).buffer),
    host: new Uint16Array(bytes(answer.host).buffer), worker: new Uint16Array(bytes(answer.worker).buffer),
  };
}

export class BlockMap {
  constructor(onChoose, onSection) {
    this.canvas = $("map");
    this.onChoose = onChoose;
    this.onSection = onSection;
    this.by = "state";
    this.chosen = null; // [z, y, x]
    this.fit();
    this.listen();
  }

  // What is drawn; null: nothing. The view stays while the grid is the same.
  show(section, grid) {
    const same = this.grid && grid && String(this.grid.shape) === String(grid.shape);
    [this.section, this.grid] = [section, grid];
    if (!same) this.fit();
    this.draw();
  }

  fit() { this.view = { zoom: 1, x: 0, y: 0 }; }

  zoom(factor, at = [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2]) {
    const zoom = Math.min(Math.max(this.view.zoom * factor, 1), 64), by = zoom / this.view.zoom;
    const center = [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2];
    // The point under the pointer stays where it is.
    const moved = (shift, n) => (shift + center[n] - at[n]) * by + at[n] - center[n];
    this.view = zoom === 1 ? { zoom, x: 0, y: 0 } : { zoom, x: moved(this.view.x, 0), y: moved(this.view.y, 1) };
    this.draw();
  }

  // Size of a cell and corner of the first one, in pixels of the page.
  layout() {
    const [ny, nx] = this.section.shape, { block_shape: block, voxel_size: voxel } = this.grid;
    const ratio = (block[1] * voxel[1]) / (block[2] * voxel[2]);
    const { clientWidth: width, clientHeight: height } = this.canvas;
    let size = Math.min(width / nx, height / (ny * ratio), LARGEST);
    if (size > 2) size = Math.floor(size);
    const w = size * this.view.zoom, tall = size * ratio * this.view.zoom;
    return {
      w, h: tall, x: (width - nx * w) / 2 + this.view.x, y: (height - ny * tall) / 2 + this.view.y,
    };
  }

  draw() {
    const ratio = window.devicePixelRatio || 1, { clientWidth: width, clientHeight: height } = this.canvas;
    const context = this.canvas.getContext("2d");
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    $("legend").replaceChildren();
    delete this.canvas.dataset.cell;
    if (!this.section) return;
    context.scale(ratio, ratio);
    const cell = this.layout(), colours = colouring(this.by, this.section);
    context.imageSmoothingEnabled = cell.w < 1;
    const [ny, nx] = this.section.shape;
    context.drawImage(this.picture(colours.of), cell.x, cell.y, nx * cell.w, ny * cell.h);
    if (Math.min(cell.w, cell.h) >= LINES_FROM) this.lines(context, cell);
    this.glyphs(context, cell, colours.of);
    this.outline(context, cell);
    this.canvas.dataset.cell = [cell.w, cell.h, cell.x, cell.y].join(" ");
    $("legend").replaceChildren(...colours.legend.map(legendEntry));
  }

  picture(of) {
    const [ny, nx] = this.section.shape;
    const picture = new OffscreenCanvas(nx, ny), context = picture.getContext("2d");
    const image = context.createImageData(nx, ny);
    for (let n = 0; n < nx * ny; n += 1) {
      image.data.set(of(n), 4 * n);
      image.data[4 * n + 3] = 255;
    }
    context.putImageData(image, 0, 0);
    return picture;
  }

  lines(context, cell) {
    const [ny, nx] = this.section.shape;
    context.fillStyle = getComputedStyle(this.canvas.closest("section")).backgroundColor;
    for (let x = 0; x <= nx; x += 1) context.fillRect(cell.x + x * cell.w - 0.5, cell.y, 1, ny * cell.h);
    for (let y = 0; y <= ny; y += 1) context.fillRect(cell.x, cell.y + y * cell.h - 0.5, nx * cell.w, 1);
  }

  // Marks for who cannot rely on colours; failed blocks of a huge section stay visible, too.
  glyphs(context, cell, of) {
    const nx = this.section.shape[1], small = Math.min(cell.w, cell.h) < GLYPHS_FROM;
    context.strokeStyle = context.fillStyle = glyphColour();
    context.lineWidth = Math.max(1, cell.w / 14);
    this.section.state.forEach((state, n) => {
      const glyph = glyphOf(state);
      if (!glyph) return;
      const x = cell.x + (n % nx) * cell.w, y = cell.y + Math.floor(n / nx) * cell.h;
      if (!small) return drawGlyph(context, glyph, x, y, cell.w, cell.h);
      context.fillStyle = `rgb(${of(n)})`;
      if (glyph !== "dot") context.fillRect(x, y, Math.max(cell.w, LEAST), Math.max(cell.h, LEAST));
    });
  }

  outline(context, cell) {
    if (!this.chosen || this.chosen[0] !== this.section.z) return;
    const [, y, x] = this.chosen;
    context.strokeStyle = chosenColour();
    context.lineWidth = 2;
    context.strokeRect(cell.x + x * cell.w, cell.y + y * cell.h, Math.max(cell.w, 4), Math.max(cell.h, 4));
  }

  at(event) {
    if (!this.section) return null;
    const box = this.canvas.getBoundingClientRect(), cell = this.layout(), [ny, nx] = this.section.shape;
    const x = Math.floor((event.clientX - box.left - cell.x) / cell.w);
    const y = Math.floor((event.clientY - box.top - cell.y) / cell.h);
    return x >= 0 && y >= 0 && x < nx && y < ny ? [this.section.z, y, x] : null;
  }

  choose(block) {
    this.chosen = block;
    this.draw();
    this.onChoose(block.join("/"));
  }

  listen() {
    let drag = null;
    this.canvas.addEventListener("pointerdown", (e) => { drag = { x: e.clientX, y: e.clientY, view: { ...this.view } }; });
    this.canvas.addEventListener("pointermove", (e) => {
      const moved = drag && Math.hypot(e.clientX - drag.x, e.clientY - drag.y) > 4;
      if (moved && e.buttons && this.view.zoom > 1) {
        drag.panned = true;
        this.view = { ...this.view, x: drag.view.x + e.clientX - drag.x, y: drag.view.y + e.clientY - drag.y };
        return this.draw();
      }
      this.tip(e);
    });
    this.canvas.addEventListener("pointerleave", () => { $("tip").hidden = true; });
    this.canvas.addEventListener("click", (e) => {
      const block = this.at(e);
      if (block && !drag?.panned) this.choose(block);
    });
    this.canvas.addEventListener("wheel", (e) => {
      if (!e.ctrlKey) return; // the page scrolls
      e.preventDefault();
      const box = this.canvas.getBoundingClientRect();
      this.zoom(Math.exp(-e.deltaY / 300), [e.clientX - box.left, e.clientY - box.top]);
    }, { passive: false });
    this.canvas.addEventListener("keydown", (e) => this.key(e));
    $("zoom-in").addEventListener("click", () => this.zoom(1.5));
    $("zoom-out").addEventListener("click", () => this.zoom(1 / 1.5));
    $("zoom-fit").addEventListener("click", () => { this.fit(); this.draw(); });
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  key(event) {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const others = {
      PageUp: () => this.onSection(-1), PageDown: () => this.onSection(1), "+": () => this.zoom(1.5),
      "-": () => this.zoom(1 / 1.5), "0": () => { this.fit(); this.draw(); },
    };
    if (!this.section || !(event.key in steps || event.key in others)) return;
    event.preventDefault();
    if (event.key in others) return others[event.key]();
    const [ny, nx] = this.section.shape, [dy, dx] = steps[event.key];
    const [z, y, x] = this.chosen?.[0] === this.section.z ? this.chosen : [this.section.z, -dy, -dx];
    this.choose([z, Math.min(Math.max(y + dy, 0), ny - 1), Math.min(Math.max(x + dx, 0), nx - 1)]);
  }

  tip(event) {
    const block = this.at(event), tip = $("tip");
    tip.hidden = !block;
    if (!block) return;
    tip.textContent = this.describe(block).join("\n");
    const frame = $("frame").getBoundingClientRect();
    const x = event.clientX - frame.left + 14, y = event.clientY - frame.top + 14;
    tip.style.left = `${Math.min(x, frame.width - tip.offsetWidth)}px`;
    tip.style.top = `${y + tip.offsetHeight > frame.height ? y - tip.offsetHeight - 28 : y}px`;
  }

  describe([z, y, x]) {
    const n = y * this.section.shape[1] + x, { grid, section } = this;
    const nm = [z, y, x].map((i, axis) => Number((grid.offset[axis] + i * grid.block_shape[axis] * grid.voxel_size[axis]).toFixed(3)));
    const lines = [`block ${z}/${y}/${x}: ${STATES[section.state[n]]}`, `offset ${nm.join(", ")} nm (z, y, x)`];
    if (!Number.isNaN(section.seconds[n])) lines.push(`${section.seconds[n].toPrecision(3)} s`);
    if (section.worker[n] !== 0xffff) lines.push(`worker ${section.workers[section.worker[n]]}`);
    if (section.host[n] !== 0xffff) lines.push(`host ${section.hosts[section.host[n]]}`);
    if (section.attempts[n]) lines.push(`${section.attempts[n]} attempt${section.attempts[n] > 1 ? "s" : ""}`);
    return lines;
  }
}

function drawGlyph(context, glyph, x, y, w, tall) {
  context.beginPath();
  if (glyph === "dot") {
    context.arc(x + w / 2, y + tall / 2, Math.min(w, tall) / 7, 0, 7);
    return context.fill();
  }
  context.moveTo(x + w * 0.25, y + tall * 0.75);
  context.lineTo(x + w * 0.75, y + tall * 0.25);
  if (glyph === "cross") {
    context.moveTo(x + w * 0.25, y + tall * 0.25);
    context.lineTo(x + w * 0.75, y + tall * 0.75);
  }
  context.stroke();
}

function legendEntry({ colour, colours, glyph, text }) {
  const swatch = h("canvas", { width: colours ? 96 : 14, height: 14 }), context = swatch.getContext("2d");
  (colours ?? [colour]).forEach((value, n, all) => {
    context.fillStyle = `rgb(${rgb(value)})`;
    context.fillRect((n * swatch.width) / all.length, 0, swatch.width / all.length + 1, 14);
  });
  context.strokeStyle = context.fillStyle = glyphColour();
  if (glyph) drawGlyph(context, glyph, 0, 0, 14, 14);
  return h("span", {}, swatch, text);
}
