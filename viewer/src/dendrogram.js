// The merge tree over time. What has happened is dark, what is to come pale; a click on a merge shows that moment.
import { css } from "./colours.js";
import { MARGIN, drawAxes, makeCard, onDrag, scale } from "./plot.js";
import { count, element, number, shape } from "./text.js";
import { timeLabel, timeTicks } from "./ticks.js";
import { makeTree } from "./tree.js";

const HEIGHT = 300;
const NEAR = 12; // pixels within which a click means a merge
const MOST_TIPS = 160;

/** Lines of merges `ids`, in pixels: a bracket over both children, and the lines that lead to it. */
function paths(tree, ids, x, y, end) {
  const parts = [];
  for (const id of ids) {
    const from = x(tree.born(id)).toFixed(1);
    const to = x(Math.min(end, tree.ends(id))).toFixed(1);
    parts.push(`M${from} ${y(tree.place[id]).toFixed(1)}H${to}`);
    if (id < tree.n) continue;
    const k = id - tree.n;
    const [low, high] = [tree.lefts[k], tree.rights[k]].map((child) => y(tree.place[child]).toFixed(1));
    parts.push(`M${from} ${low}V${high}`);
  }
  return parts.join("");
}

/**
 * The panel of `meta.dendrogram`: {element, draw(state)}. `seek(value)` moves time. `choose(tokens, k)` is called with
 * the tokens of a merge, or with null. `tell(event, lines)` shows words at the pointer, none if `lines` is null.
 */
export function makeDendrogram(page, { seek, choose, tell, colours }) {
  const { dendrogram, time } = page.meta;
  const times = page.array(time.array);
  const tree = makeTree(page, dendrogram);
  const all = Array.from({ length: tree.total }, (_, id) => id);
  const leaf = page.array(dendrogram.leaf_of);
  const tokenOf = new Int32Array(tree.n).fill(-1); // one shown token of each leaf
  leaf.forEach((one, i) => (tokenOf[one] = i));
  const sample = new Int32Array(tree.total).fill(-1); // one shown token of each id
  sample.set(tokenOf);
  for (let k = 0; k < tree.merges; k++)
    sample[tree.n + k] = Math.max(sample[tree.lefts[k]], sample[tree.rights[k]]);
  const clusters = colours.find(({ name, kind }) => name === "cluster" && kind === "category");
  let place = null;
  let state = null;
  let chosen = -1;
  const card = makeCard("Merge tree", HEIGHT, layout);
  card.svg.classList.add("tree");
  card.head.append(element("span", "note", dendrogram.note ?? "click a merge: that moment, those tokens"));

  const name = (k) => {
    const [low, high] = [tree.lefts[k], tree.rights[k]].map((id) => tree.sizes[id]);
    const height = tree.heights[k];
    const when = time.log ? `t = 10^${height.toFixed(2)}` : `t = ${number(height)}`;
    return [`${count(low, "token")} + ${count(high, "token")}`, when];
  };

  function layout(width) {
    const { svg } = card;
    const x = scale(times[0], times[times.length - 1], MARGIN.left, width - MARGIN.right);
    const y = scale(0, Math.max(1, tree.n - 1), MARGIN.top + 6, HEIGHT - MARGIN.bottom - 8);
    const end = times[times.length - 1];
    svg.replaceChildren();
    const ticks = timeTicks(time, times, width - MARGIN.left - MARGIN.right);
    const label = timeLabel(time);
    drawAxes(
      svg,
      width,
      HEIGHT,
      { at: x, ticks, label },
      { at: y, ticks: [], label: count(tree.n, dendrogram.leaf_sizes ? "group" : "token") },
    );
    const d = paths(tree, all, x, y, end);
    const past = shape("clipPath", { id: "tree-past" });
    const window = shape("rect", { x: 0, y: 0, width: 0, height: HEIGHT });
    past.append(window);
    const fine = tree.n > 120 ? " fine" : "";
    const done = shape("path", { class: `branch${fine}`, d, "clip-path": "url(#tree-past)" });
    const picked = shape("path", { class: "branch picked" });
    const cursor = shape("line", { class: "cursor", y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom });
    const tips = shape("g");
    const spot = shape("circle", { class: "spot", r: 5, visibility: "hidden" });
    svg.append(past, shape("path", { class: `branch coming${fine}`, d }), done, picked, cursor, tips, spot);
    place = { x, y, end, window, picked, cursor, tips, spot };
    mark();
    if (state) draw(state);
  }

  function mark() {
    if (!place) return;
    place.picked.setAttribute(
      "d",
      chosen < 0 ? "" : paths(tree, tree.below(tree.n + chosen), place.x, place.y, place.end),
    );
  }

  function drawTips(at) {
    const ids = tree.alive(state.value);
    if (!clusters || ids.length > MOST_TIPS) return place.tips.replaceChildren();
    const labels = clusters.values(state.frame);
    const most = Math.max(...ids.map((id) => tree.sizes[id]));
    const dots = ids.map((id) => {
      const r = 1.8 + 5.2 * Math.sqrt(tree.sizes[id] / most);
      const dot = shape("circle", {
        class: "tip",
        cx: at,
        cy: place.y(tree.place[id]).toFixed(1),
        r: r.toFixed(1),
      });
      const token = sample[id];
      if (token >= 0) dot.style.fill = css(clusters.colourOf(labels[token], tree.sizes[id], state.theme));
      return dot;
    });
    place.tips.replaceChildren(...dots);
  }

  function draw(now) {
    state = now;
    if (!now.highlight && chosen >= 0) {
      chosen = -1;
      mark();
    }
    if (!place) return;
    const at = place.x(now.value).toFixed(1);
    place.window.setAttribute("width", at);
    place.cursor.setAttribute("x1", at);
    place.cursor.setAttribute("x2", at);
    drawTips(at);
  }

  /** The merge whose bracket is nearest to a point, or -1. */
  function mergeAt(px, py) {
    let best = -1;
    let least = NEAR;
    for (let k = 0; k < tree.merges; k++) {
      const [low, high] = [tree.lefts[k], tree.rights[k]]
        .map((id) => place.y(tree.place[id]))
        .sort((a, b) => a - b);
      const apart = Math.hypot(px - place.x(tree.heights[k]), Math.max(0, low - py, py - high));
      if (apart < least) [best, least] = [k, apart];
    }
    return best;
  }

  onDrag(card.svg, (px, py, event) => {
    if (!place) return;
    if (event.type === "pointermove") return seek(place.x.inverse(px));
    const k = mergeAt(px, py);
    chosen = k;
    mark();
    choose(k < 0 ? null : tree.tokens(k), k);
    seek(k < 0 ? place.x.inverse(px) : tree.heights[k], k >= 0);
  });
  card.svg.addEventListener("pointermove", (event) => {
    if (!place || event.buttons) return;
    const box = card.svg.getBoundingClientRect();
    const k = mergeAt(event.clientX - box.left, event.clientY - box.top);
    place.spot.setAttribute("visibility", k < 0 ? "hidden" : "visible");
    if (k >= 0) {
      place.spot.setAttribute("cx", place.x(tree.heights[k]).toFixed(1));
      place.spot.setAttribute("cy", place.y(tree.place[tree.n + k]).toFixed(1));
    }
    tell(event, k < 0 ? null : name(k));
  });
  card.svg.addEventListener("pointerleave", (event) => {
    place?.spot.setAttribute("visibility", "hidden");
    tell(event, null);
  });
  return {
    element: card.box,
    draw,
    mergePlace: (k) => [place.x(tree.heights[k]), place.y(tree.place[tree.n + k])],
  };
}
