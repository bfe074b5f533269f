// Words and numbers on the page. Everything becomes text: data never becomes markup.

const SUPERSCRIPT = {
  "-": "⁻",
  ".": "·",
  0: "⁰",
  1: "¹",
  2: "²",
  3: "³",
  4: "⁴",
  5: "⁵",
  6: "⁶",
  7: "⁷",
  8: "⁸",
  9: "⁹",
};

/** An element with text; `className` may be empty. */
export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== "") made.textContent = text;
  return made;
}

/** An SVG element with attributes. */
export function shape(tag, attributes = {}) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** 10 to a power, as "10³". */
export function power(exponent) {
  return `10${[...String(exponent)].map((letter) => SUPERSCRIPT[letter] ?? letter).join("")}`;
}

const SUBSCRIPT = { i: "ᵢ", j: "ⱼ", 0: "₀", 1: "₁", 2: "₂", 3: "₃" };

/** x_i as xᵢ. */
export function subscripts(text) {
  return text.replace(/_([ij0-3])(?![a-z0-9])/g, (_, letter) => SUBSCRIPT[letter]);
}

/** A number in three digits, with a true minus: 0.123, 12.3, 1.2·10⁵. */
export function number(value, digits = 3) {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) {
    const exponent = Math.floor(Math.log10(size));
    return `${plain(value / 10 ** exponent, 2)}·${power(exponent)}`;
  }
  if (Number.isInteger(value)) return plain(value, 6);
  return plain(value, digits);
}

function plain(value, digits) {
  return String(Number(value.toPrecision(digits))).replace("-", "−");
}

/** "1 token", "2 tokens". */
export function count(n, word) {
  return `${n.toLocaleString("en").replaceAll(",", " ")} ${word}${n === 1 ? "" : "s"}`;
}

/** Parts of the name of a moment: {text, exponent}, exponent shown as a superscript or null. */
export function moment(time, times, position) {
  const frame = Math.round(position);
  const low = Math.floor(position);
  const value = times[low] + (position - low) * ((times[low + 1] ?? times[low]) - times[low]);
  if (time.kind === "layer") return { text: layerName(time, frame), exponent: null };
  if (time.zero && position === 0) return { text: "t = 0", exponent: null };
  if (time.zero && position < 1) return { text: "t < 10", exponent: exponentText(times[1]) };
  if (time.log) return { text: "t = 10", exponent: exponentText(value) };
  return { text: `t = ${number(value)}`, exponent: null };
}

function exponentText(value) {
  return (Math.abs(value) < 100 ? value.toFixed(2) : value.toFixed(1)).replace("-", "−");
}

function layerName(time, frame) {
  const tick = time.ticks?.[frame] ?? String(frame);
  return /^\d/.test(tick) ? `layer ${tick}` : tick;
}

/** The moment on one line: "t = 10^1.25". */
export function momentLine(time, times, position) {
  const { text, exponent } = moment(time, times, position);
  return exponent === null ? text : `${text}^${exponent}`;
}
