// What colour a block has, and what the legend says about it.

export const STATES = ["waiting", "running", "done", "failed", "quarantined", "masked"];
const NAMES = ["waiting", "running", "done", "failed, will be tried again", "quarantined", "masked"];
const RUNNING = 1, FAILED = 3, QUARANTINED = 4;

// Viridis: even steps of lightness, readable with every kind of colour vision.
const VIRIDIS = ["#440154", "#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39", "#fde725"];
const HOSTS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#7f7f7f"];
const ATTEMPTS = ["#bfd3e6", "#8c96c6", "#8856a7", "#4d004b"];

export const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

function variable(name) {
  const value = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  return value.length === 4 ? `#${[...value.slice(1)].map((c) => c + c).join("")}` : value;
}

export const stateColours = () => STATES.map(variable);
export const glyphColour = () => variable("glyph");
export const chosenColour = () => variable("chosen");

function between(colours, share) {
  const at = Math.min(Math.max(share, 0), 1) * (colours.length - 1), low = Math.min(Math.floor(at), colours.length - 2);
  const [a, b] = [rgb(colours[low]), rgb(colours[low + 1])];
  return a.map((value, n) => Math.round(value + (b[n] - value) * (at - low)));
}

// {of: position of a block -> [r, g, b], legend: [{colour | colours, text}]}
export function colouring(by, section) {
  return { state: byState, seconds: bySeconds, host: byHost, attempts: byAttempts }[by](section);
}

function byState(section) {
  const colours = stateColours(), values = colours.map(rgb), counts = new Array(STATES.length).fill(0);
  for (const state of section.state) counts[state] += 1;
  const shown = STATES.map((_, n) => n).filter((n) => counts[n] || n < 3);
  return {
    of: (n) => values[section.state[n]],
    legend: shown.map((n) => ({ colour: colours[n], glyph: glyphOf(n), text: `${NAMES[n]} (${counts[n]})` })),
  };
}

export function glyphOf(state) {
  return { [RUNNING]: "dot", [FAILED]: "slash", [QUARANTINED]: "cross" }[state];
}

function bySeconds(section) {
  const known = section.seconds.filter((value) => !Number.isNaN(value)).sort();
  const none = rgb(stateColours()[0]);
  if (!known.length) return { of: () => none, legend: [{ colour: stateColours()[0], text: "no block is done" }] };
  // The slowest hundredth would leave one colour for all others.
  const low = known[0], high = known[Math.floor((known.length - 1) * 0.99)];
  return {
    of: (n) => Number.isNaN(section.seconds[n]) ? none : between(VIRIDIS, (section.seconds[n] - low) / (high - low || 1)),
    legend: [
      { colours: VIRIDIS, text: `${low.toPrecision(3)} to ${high.toPrecision(3)} s, slowest ${known[known.length - 1].toPrecision(3)} s` },
      { colour: stateColours()[0], text: "not done" },
    ],
  };
}

function byHost(section) {
  const none = rgb(stateColours()[0]), values = HOSTS.map(rgb);
  const shown = section.hosts.slice(0, 24).map((text, n) => ({ colour: HOSTS[n % HOSTS.length], text }));
  if (section.hosts.length > shown.length) shown.push({ colour: HOSTS[0], text: `and ${section.hosts.length - shown.length} more hosts` });
  return {
    of: (n) => section.host[n] === 0xffff ? none : values[section.host[n] % HOSTS.length],
    legend: [...shown, { colour: stateColours()[0], text: "not done" }],
  };
}

function byAttempts(section) {
  const none = rgb(stateColours()[0]), values = ATTEMPTS.map(rgb);
  return {
    of: (n) => section.attempts[n] ? values[Math.min(section.attempts[n], values.length) - 1] : none,
    legend: [
      { colour: stateColours()[0], text: "none yet" },
      ...ATTEMPTS.map((colour, n) => ({ colour, text: n === ATTEMPTS.length - 1 ? `${n + 1} or more` : `${n + 1}` })),
    ],
  };
}
