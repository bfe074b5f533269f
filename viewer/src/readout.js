// The moment shown, in large letters over the stage, and how many clusters there are.
import { sizes } from "./colours.js";
import { valueOf } from "./panels.js";
import { count, element, moment } from "./text.js";

/** Number of clusters at a moment: the run's own count if the page holds it, else of the tokens shown, else NaN. */
function counter(page, columns) {
  const series = page.meta.panels
    .find(({ id }) => id === "clusters")
    ?.series.find(({ style }) => style === "measured");
  if (series) {
    const [x, y] = [page.array(series.x), page.array(series.y)];
    return ({ value }) => Math.round(valueOf(x, y, value, true));
  }
  const column = columns.find(({ name, kind }) => name === "cluster" && kind === "category");
  return column ? ({ frame }) => sizes(column.values(frame)).size : () => NaN;
}

/** {element, draw(state)}. */
export function makeReadout(page, columns) {
  const { time } = page.meta;
  const times = page.array(time.array);
  const box = element("div", "readout");
  const when = element("div", "when");
  const words = element("span");
  const exponent = element("sup");
  when.append(words, exponent);
  const clusters = element("div", "clusters");
  box.append(when, clusters);
  const clustersAt = counter(page, columns);
  return {
    element: box,
    draw(state) {
      const { text, exponent: above } = moment(time, times, state.position);
      words.textContent = text;
      exponent.textContent = above ?? "";
      const n = clustersAt(state);
      clusters.textContent = Number.isFinite(n) ? count(n, "cluster") : "";
    },
  };
}
