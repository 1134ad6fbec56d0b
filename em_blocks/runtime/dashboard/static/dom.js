// Pieces of the page. Text from the run reaches the document as text nodes only, never as HTML.

export const $ = (id) => document.getElementById(id);

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// Keep the elements of items that stay, so that focus, selection and open details survive.
export function keep(container, items, keyOf, make) {
  const old = new Map([...container.children].map((child) => [child.dataset.key, child]));
  const wanted = items.map((item) => {
    const key = keyOf(item), said = JSON.stringify(item);
    const present = old.get(key);
    if (present?.dataset.said === said) return present;
    const element = make(item, present);
    element.dataset.key = key;
    element.dataset.said = said;
    return element;
  });
  if (wanted.length !== container.children.length || wanted.some((e, n) => e !== container.children[n])) {
    container.replaceChildren(...wanted);
  }
}

export const pill = (state) => h("span", { class: `pill ${/^[a-z]+$/.test(state) ? state : ""}` }, state);

export function command(text) {
  const button = h("button", { title: "copy the command" }, "copy");
  button.addEventListener("click", async () => {
    button.textContent = (await copy(text)) ? "copied" : "select and copy by hand";
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
  return h("div", { class: "command" }, h("pre", { class: "replay" }, text), button);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { // a page of another machine without https has no clipboard
    return false;
  }
}

export const count = (n) => n.toLocaleString("en-US");

export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "";
  const s = Math.round(seconds);
  if (s >= 86400) return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
  if (s >= 3600) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  if (s >= 60) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${s} s`;
}

export const shortly = (value) =>
  value === null || value === undefined || Number.isNaN(value) ? "" : String(Number(value.toPrecision(3)));

export const clock = (iso) => new Date(iso).toLocaleTimeString("en-GB");
