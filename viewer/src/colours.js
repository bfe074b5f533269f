// Colours of tokens. Categories: Okabe and Ito's palette, told apart in every kind of colour vision, then its
// lighter and darker shades. Numbers: viridis.

const OKABE_ITO = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#b8a600"];
const VIRIDIS = [
  "#440154",
  "#482475",
  "#414487",
  "#355f8d",
  "#2a788e",
  "#21918c",
  "#22a884",
  "#44bf70",
  "#7ad151",
  "#bddf26",
  "#fde725",
];
const SINGLE = { light: [148, 156, 168], dark: [128, 138, 153] }; // a token that is in no cluster yet
const NOTHING = { light: [205, 209, 215], dark: [70, 77, 88] }; // no value

const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
const mix = (from, to, share) => from.map((channel, k) => Math.round(channel + (to[k] - channel) * share));
export const css = (colour) => `rgb(${colour.join(" ")})`;

/** Colour of the k-th category. */
export function categorical(k, theme) {
  const base = rgb(OKABE_ITO[k % OKABE_ITO.length]);
  const level = Math.floor(k / OKABE_ITO.length) % 3;
  const lifted = theme === "dark" ? mix(base, [255, 255, 255], 0.15) : base;
  return [lifted, mix(lifted, [255, 255, 255], 0.45), mix(lifted, [0, 0, 0], 0.4)][level];
}

/** Colour of a share in [0, 1]; the end that would sink into the background is left out. */
export function sequential(share, theme) {
  if (!Number.isFinite(share)) return NOTHING[theme];
  const inside = Math.max(0, Math.min(1, share));
  const at = (theme === "dark" ? 0.15 + 0.85 * inside : 0.92 * inside) * (VIRIDIS.length - 1);
  const low = Math.min(VIRIDIS.length - 2, Math.floor(at));
  return mix(rgb(VIRIDIS[low]), rgb(VIRIDIS[low + 1]), at - low);
}

/** Size of each category among `values`: Map of category to tokens. */
export function sizes(values) {
  const found = new Map();
  for (const value of values) found.set(value, (found.get(value) ?? 0) + 1);
  return found;
}

/** Place in the palette of each cluster: those with most tokens for most frames get the most different colours. */
function ranks(page, name) {
  const { shape } = page.meta.arrays[name];
  const frames = shape.length === 1 ? 1 : shape[0];
  const weight = new Map();
  for (let frame = 0; frame < frames; frame++)
    for (const [label, tokens] of sizes(page.row(name, frame)))
      if (tokens > 1) weight.set(label, (weight.get(label) ?? 0) + tokens);
  const order = [...weight.keys()].sort((a, b) => weight.get(b) - weight.get(a) || a - b);
  return new Map(order.map((label, rank) => [label, rank]));
}

function range(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : [0, 1];
}

function category(page, column) {
  const fixed = Boolean(column.labels);
  const rank = fixed ? null : ranks(page, column.array);
  const colourOf = (label, tokens, theme) => {
    if (fixed) return categorical(label, theme);
    return tokens > 1 && rank.has(label) ? categorical(rank.get(label), theme) : SINGLE[theme];
  };
  return {
    ...column,
    values: (frame) => page.row(column.array, frame),
    textOf: (value, word = column.name) =>
      fixed ? (column.labels[value] ?? String(value)) : `${word} ${value}`,
    colourOf,
    paint(frame, theme, out) {
      const values = page.row(column.array, frame);
      const found = sizes(values);
      const made = new Map([...found].map(([label, tokens]) => [label, colourOf(label, tokens, theme)]));
      for (let i = 0; i < values.length; i++) out.set(made.get(values[i]), 3 * i);
    },
  };
}

function numeric(page, column) {
  const [low, high] = range(page.array(column.array));
  const share = (value) => (high > low ? (value - low) / (high - low) : 0.5);
  return {
    ...column,
    low,
    high,
    values: (frame) => page.row(column.array, frame),
    paint(frame, theme, out) {
      const values = page.row(column.array, frame);
      for (let i = 0; i < values.length; i++) out.set(sequential(share(values[i]), theme), 3 * i);
    },
  };
}

const KINDS = { category, number: numeric };

/** The columns of `meta.colors`, each with `values(frame)` and `paint(frame, theme, out)`. */
export function makeColours(page) {
  const columns = page.meta.colors.map((column) => KINDS[column.kind](page, column));
  if (columns.length) return columns;
  const plain = (frame, theme, out) => {
    const only = categorical(0, theme);
    for (let i = 0; i < out.length; i++) out[i] = only[i % 3];
  };
  return [{ name: "none", kind: "plain", values: () => null, paint: plain }];
}
