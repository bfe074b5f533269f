// Axes of a small plot in SVG: crisp at any size, in the colours of the page.
import { niceTicks } from "./ticks.js";
import { element, number, power, shape, subscripts } from "./text.js";

export const MARGIN = { left: 62, right: 14, top: 8, bottom: 34 };

/** A card with a title and an SVG of its own width; `redraw(width, height)` is called when that changes. */
export function makeCard(title, height, redraw) {
  const box = element("section", "card");
  const head = element("header");
  head.append(element("h2", "", title));
  const svg = shape("svg", { height, role: "img", "aria-label": title });
  box.append(head, svg);
  let width = 0;
  new ResizeObserver(() => {
    const wanted = Math.round(box.clientWidth);
    if (!wanted || wanted === width) return;
    width = wanted;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("width", width);
    redraw(width, height);
  }).observe(box);
  return { box, head, svg };
}

/** A linear map from [low, high] to [start, end], with its inverse. */
export function scale(low, high, start, end) {
  const slope = (end - start) / (high - low || 1);
  const at = (value) => start + slope * (value - low);
  at.inverse = (pixel) => low + (pixel - start) / slope;
  return at;
}

/** Range of finite values with a little air; null if there is none. */
export function rangeOf(lists, log) {
  let low = Infinity;
  let high = -Infinity;
  for (const list of lists)
    for (const raw of list) {
      const value = log ? Math.log10(raw) : raw;
      if (!Number.isFinite(value)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  if (low > high) return null;
  const air = high > low ? 0.06 * (high - low) : Math.max(0.5, Math.abs(high) * 0.05);
  return [low >= 0 && !log && low < 0.3 * (high - low) ? Math.min(0, low) : low - air, high + air];
}

/** Marks of a value axis. */
export function valueTicks(low, high, log, wanted = 4) {
  if (!log) return niceTicks(low, high, wanted).map((at) => ({ at, text: number(at) }));
  if (high - low >= 3 || high > 5)
    return niceTicks(low, high, wanted, true).map((at) => ({ at, text: power(at) }));
  if (high - low < 0.8) {
    const inside = niceTicks(10 ** low, 10 ** high, wanted).filter((value) => value > 0);
    return inside.map((value) => ({ at: Math.log10(value), text: number(value) }));
  }
  const factors = high - low > 1.6 ? [1, 3] : [1, 2, 5];
  const decades = Array.from(
    { length: Math.ceil(high) - Math.floor(low) },
    (_, k) => 10 ** (Math.floor(low) + k),
  );
  const values = decades.flatMap((decade) => factors.map((factor) => Number((factor * decade).toPrecision(3))));
  return values.map((value) => ({ at: Math.log10(value), text: number(value) }));
}

function text(svg, content, attributes) {
  const made = shape("text", attributes);
  made.textContent = content;
  svg.append(made);
  return made;
}

/** Draws axes, marks and labels into `svg`. `x` and `y` are {at, ticks, label}; `at` maps values to pixels. */
export function drawAxes(svg, width, height, x, y) {
  const [left, right] = [MARGIN.left, width - MARGIN.right];
  const [top, bottom] = [MARGIN.top, height - MARGIN.bottom];
  for (const tick of y.ticks) {
    const at = y.at(tick.at);
    if (at < top - 1 || at > bottom + 1) continue;
    svg.append(shape("line", { class: "grid", x1: left, x2: right, y1: at, y2: at }));
    text(svg, tick.text, { class: "tick", x: left - 7, y: at + 3.5, "text-anchor": "end" });
  }
  svg.append(shape("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }));
  for (const tick of x.ticks) {
    const at = x.at(tick.at);
    svg.append(shape("line", { class: "axis", x1: at, x2: at, y1: bottom, y2: bottom + 4 }));
    const made = text(svg, tick.text, { class: "tick", x: at, y: bottom + 15, "text-anchor": "middle" });
    const half = 3.2 * tick.text.length;
    if (at + half > width) made.setAttribute("text-anchor", "end");
  }
  text(svg, subscripts(x.label), {
    class: "label",
    x: (left + right) / 2,
    y: height - 5,
    "text-anchor": "middle",
  });
  const middle = (top + bottom) / 2;
  text(svg, subscripts(y.label), {
    class: "label",
    "text-anchor": "middle",
    transform: `translate(13 ${middle}) rotate(-90)`,
  });
}

/** Calls `move(x, y, event)` with the place in `svg` where the pointer is pressed, and then where it is dragged to. */
export function onDrag(svg, move) {
  let start = null; // null once the pointer has left the place where it was pressed
  const place = (event) => {
    const box = svg.getBoundingClientRect();
    move(event.clientX - box.left, event.clientY - box.top, event);
  };
  svg.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    svg.setPointerCapture(event.pointerId);
    start = [event.clientX, event.clientY];
    place(event);
  });
  svg.addEventListener("pointermove", (event) => {
    if (!svg.hasPointerCapture(event.pointerId)) return;
    if (start && Math.hypot(event.clientX - start[0], event.clientY - start[1]) < 4) return;
    start = null;
    place(event);
  });
}
