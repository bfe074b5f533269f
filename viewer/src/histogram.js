// Histogram of the moment shown. Heights are square roots of shares, so that few pairs are seen beside many.
import { MARGIN, drawAxes, makeCard, scale } from "./plot.js";
import { element, number, shape } from "./text.js";
import { niceTicks } from "./ticks.js";

const HEIGHT = 160;
const SHARES = [0, 0.01, 0.05, 0.1, 0.25, 0.5, 1];

/** The panel of `meta.histogram`: {element, draw(state)}. */
export function makeHistogram(page, { title, label, edges, counts, note }) {
  const bins = page.array(edges);
  const most = page.array(counts).reduce((largest, value) => Math.max(largest, value), 0) || 1;
  let place = null;
  let state = null;
  const card = makeCard(title, HEIGHT, layout);
  if (note) card.head.append(element("span", "note", note));

  function layout(width) {
    const { svg } = card;
    const x = scale(bins[0], bins[bins.length - 1], MARGIN.left, width - MARGIN.right);
    const root = scale(0, Math.sqrt(most), HEIGHT - MARGIN.bottom, MARGIN.top);
    const y = (share) => root(Math.sqrt(share));
    const ticks = niceTicks(bins[0], bins[bins.length - 1], 5).map((at) => ({ at, text: number(at) }));
    const marks = SHARES.filter((share) => share <= most).map((at) => ({ at, text: String(at) }));
    const apart = marks.filter(
      ({ at }, k) => k === 0 || y(marks[k - 1].at) - y(at) > 13 || k === marks.length - 1,
    );
    svg.replaceChildren();
    drawAxes(svg, width, HEIGHT, { at: x, ticks, label }, { at: y, ticks: apart, label: "share, √ scale" });
    const bars = shape("path", { class: "bars" });
    svg.append(bars);
    place = { x, y, bars };
    if (state) draw(state);
  }

  function draw(now) {
    state = now;
    if (!place) return;
    const { x, y, bars } = place;
    const heights = page.row(counts, now.frame);
    const floor = y(0).toFixed(1);
    const bar = (height, k) => {
      const [left, right] = [x(bins[k]), x(bins[k + 1])];
      const gap = right - left > 5 ? 0.6 : 0;
      return `M${(left + gap).toFixed(1)} ${floor}V${y(height).toFixed(1)}H${(right - gap).toFixed(1)}V${floor}Z`;
    };
    bars.setAttribute("d", Array.from(heights, (height, k) => (height > 0 ? bar(height, k) : "")).join(""));
  }
  return { element: card.box, draw };
}
