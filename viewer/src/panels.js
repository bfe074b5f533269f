// Line plots over the time of the run: measured as lines, theory dashed, events as marks; a cursor at the moment shown.
import { locate } from "./clock.js";
import { MARGIN, drawAxes, makeCard, onDrag, rangeOf, scale, valueTicks } from "./plot.js";
import { element, number, shape } from "./text.js";
import { timeLabel, timeTicks } from "./ticks.js";

const HEIGHT = 178;
let cards = 0;

/** The path of a series in pixels; gaps where values are missing, a staircase if `step`. */
export function seriesPath(x, y, atX, atY, step) {
  const parts = [];
  let open = false;
  for (let k = 0; k < x.length; k++) {
    const [px, py] = [atX(x[k]), atY(y[k])];
    if (!Number.isFinite(px) || !Number.isFinite(py)) open = false;
    else {
      const place = `${px.toFixed(1)} ${py.toFixed(1)}`;
      if (!open) parts.push(`M${place}`);
      else parts.push(step ? `H${px.toFixed(1)}V${py.toFixed(1)}` : `L${place}`);
      open = true;
    }
  }
  return parts.join("");
}

/** Value of a series at `value` of its x: the one before if `step`, else between the two around. */
export function valueOf(x, y, value, step) {
  if (!x.length || value < x[0] - 1e-9 || value > x[x.length - 1] + 1e-9) return NaN;
  const position = locate(x, value);
  const low = Math.floor(position + 1e-9);
  const share = position - low;
  return step || share <= 1e-9 ? y[low] : y[low] + share * (y[low + 1] - y[low]);
}

function legendEntry(series, k) {
  const entry = element("span", `series ${series.style} s${k}`);
  const sample = shape("svg", { width: 22, height: 10, "aria-hidden": "true" });
  if (series.style === "event") sample.append(shape("path", { class: `mark s${k}`, d: diamond(11, 5) }));
  else sample.append(shape("line", { class: `line ${series.style} s${k}`, x1: 1, x2: 21, y1: 5, y2: 5 }));
  const value = element("span", "value");
  entry.append(sample, element("span", "name", series.name), value);
  if (series.note) entry.title = series.note;
  return { entry, value };
}

const diamond = (x, y) => `M${x} ${y - 4}L${x + 4} ${y}L${x} ${y + 4}L${x - 4} ${y}Z`;

/** One panel: {element, draw(state)}. `seek(value)` moves time. */
export function makePanel(page, panel, seek) {
  const times = page.array(page.meta.time.array);
  const series = panel.series.map((one, k) => ({
    ...one,
    k: k % 6,
    xs: page.array(one.x),
    ys: page.array(one.y),
  }));
  const log = (value) => (panel.y_log ? Math.log10(value) : value);
  const clip = `panel-${cards++}`;
  let place = null;
  let state = null;

  const legend = element("div", "series-list");
  const entries = series.map((one) => legendEntry(one, one.k));
  legend.append(...entries.map(({ entry }) => entry));
  const card = makeCard(panel.title, HEIGHT, layout);
  card.head.append(legend);

  function layout(width) {
    const { svg } = card;
    const span = rangeOf(
      series.filter(({ style }) => style !== "event").map(({ ys }) => ys),
      panel.y_log,
    ) ??
      rangeOf(
        series.map(({ ys }) => ys),
        panel.y_log,
      ) ?? [0, 1];
    const x = scale(times[0], times[times.length - 1], MARGIN.left, width - MARGIN.right);
    const y = scale(...span, HEIGHT - MARGIN.bottom, MARGIN.top);
    svg.replaceChildren();
    const box = shape("clipPath", { id: clip });
    const inside = { x: MARGIN.left - 1, y: MARGIN.top - 5, width: width - MARGIN.left - MARGIN.right + 6 };
    box.append(shape("rect", { ...inside, height: HEIGHT - MARGIN.top - MARGIN.bottom + 10 }));
    svg.append(box);
    const ticks = timeTicks(page.meta.time, times, width - MARGIN.left - MARGIN.right);
    const marks = valueTicks(...span, panel.y_log);
    drawAxes(
      svg,
      width,
      HEIGHT,
      { at: x, ticks, label: timeLabel(page.meta.time, panel.x_label) },
      { at: y, ticks: marks, label: panel.y_label },
    );
    const lines = shape("g", { "clip-path": `url(#${clip})` });
    const ordered = [...series].sort((a, b) => (a.style === "theory") - (b.style === "theory"));
    for (const one of ordered) {
      if (one.style === "event") {
        const d = Array.from(one.xs, (value, k) => [x(value), y(log(one.ys[k]))])
          .filter(([px, py]) => Number.isFinite(px) && Number.isFinite(py))
          .map(([px, py]) => diamond(px, py))
          .join("");
        lines.append(shape("path", { class: `mark s${one.k}`, d }));
      } else {
        const d = seriesPath(one.xs, one.ys, x, (value) => y(log(value)), one.step);
        lines.append(shape("path", { class: `line ${one.style} s${one.k}`, d }));
      }
    }
    const cursor = shape("line", { class: "cursor", y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom });
    const dots = series.map((one) => shape("circle", { class: `dot s${one.k}`, r: 3.6 }));
    svg.append(lines, cursor, ...dots);
    place = { x, y, cursor, dots };
    if (state) draw(state);
  }

  function draw(now) {
    state = now;
    if (!place) return;
    const at = place.x(now.value).toFixed(1);
    place.cursor.setAttribute("x1", at);
    place.cursor.setAttribute("x2", at);
    series.forEach((one, k) => {
      const value = one.style === "event" ? NaN : valueOf(one.xs, one.ys, now.value, one.step);
      const y = place.y(log(value));
      const seen = Number.isFinite(y) && one.style === "measured";
      place.dots[k].setAttribute("visibility", seen ? "visible" : "hidden");
      if (seen) {
        place.dots[k].setAttribute("cx", at);
        place.dots[k].setAttribute("cy", y.toFixed(1));
      }
      entries[k].value.textContent = one.style === "event" ? "" : number(value);
    });
  }

  onDrag(card.svg, (px) => place && seek(place.x.inverse(px)));
  return { element: card.box, draw };
}
