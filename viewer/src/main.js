// The page: reads its data, lays out its parts, and draws them again when the moment, the colours or the view change.
import { firstFrom, makeClock } from "./clock.js";
import { makeColours } from "./colours.js";
import { readPage } from "./data.js";
import { makeDendrogram } from "./dendrogram.js";
import { makeHistogram } from "./histogram.js";
import { makeKeyboard } from "./keyboard.js";
import { makeLegend } from "./legend.js";
import { makePanel } from "./panels.js";
import { makeReadout } from "./readout.js";
import { makeStage } from "./stage.js";
import { element } from "./text.js";
import { makeTimeline } from "./timeline.js";
import { makeTooltip, tokenWords } from "./tooltip.js";

const root = document.documentElement;
const asks = (query) => window.matchMedia(query);

/** Seconds that the whole run takes at speed 1. */
function seconds({ kind }, frames) {
  return kind === "layer" ? 0.6 * Math.max(1, frames - 1) : Math.max(8, Math.min(18, 0.09 * frames));
}

function button(text, label, act) {
  const made = element("button", "", text);
  made.type = "button";
  made.title = label;
  made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

function heading({ title, subtitle }, buttons) {
  const box = element("header", "top");
  const words = element("div", "words");
  words.append(element("h1", "", title || "attnflow"));
  if (subtitle) words.append(element("p", "", subtitle));
  const side = element("div", "buttons");
  side.append(...buttons);
  box.append(words, side);
  return box;
}

function footing({ notes, space, made_by: maker }) {
  const box = element("footer");
  const list = element("ul");
  list.append(...[space.note, ...notes].filter(Boolean).map((line) => element("li", "", line)));
  box.append(list, element("p", "maker", `made by ${maker}`));
  return box;
}

/** The stage, or null where the browser has no WebGL. */
function tryStage(page, columns, hooks) {
  const quiet = document.createElement("canvas").getContext("webgl2");
  if (!quiet) return null;
  quiet.getExtension("WEBGL_lose_context")?.loseContext();
  return makeStage(page, columns, hooks);
}

function open(page, app) {
  const { meta } = page;
  const columns = makeColours(page);
  const calm = asks("(prefers-reduced-motion: reduce)").matches;
  const dark = asks("(prefers-color-scheme: dark)");
  const state = { colour: 0, theme: dark.matches ? "dark" : "light", highlight: null, version: 0 };
  root.dataset.theme = state.theme;

  let waiting = false;
  function redraw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(drawAll);
  }
  const clock = makeClock(page.array(meta.time.array), {
    seconds: seconds(meta.time, page.frames),
    smooth: () => !calm,
    changed: redraw,
  });

  function choose(tokens) {
    state.highlight = tokens;
    state.version += 1;
    redraw();
  }
  function setTheme(theme) {
    root.dataset.theme = state.theme = theme;
    redraw();
  }
  function setColour(k) {
    state.colour = k;
    redraw();
  }
  function seek(value, whole = false) {
    clock.pause();
    if (whole) clock.setFrame(firstFrom(clock.times, value));
    else clock.setValue(value);
  }

  const stage = tryStage(page, columns, { redraw, calm });
  const tooltip = makeTooltip();
  const words = tokenWords(page, columns);
  const actions = {
    nextColour: () => setColour((state.colour + 1) % columns.length),
    theme: () => setTheme(state.theme === "dark" ? "light" : "dark"),
    rotate: () => stage?.rotate(!stage.rotating() && !calm),
    home: () => stage?.home(),
    clear: () => choose(null),
    save,
  };
  const keyboard = makeKeyboard(clock, actions);
  const timeline = makeTimeline(page, clock);
  const legend = makeLegend(columns, setColour);
  const readout = makeReadout(page, columns);
  const tell = (event, lines) => tooltip.show(event, lines);
  const panels = [
    meta.dendrogram && makeDendrogram(page, { seek, choose, tell, colours: columns }),
    ...meta.panels.map((panel) => makePanel(page, panel, seek)),
    meta.histogram && makeHistogram(page, meta.histogram),
  ].filter(Boolean);
  const parts = [stage, timeline, legend, readout, ...panels].filter(Boolean);

  const buttons = [button("◐", "Light or dark (t)", actions.theme), button("?", "Keys (?)", keyboard.toggle)];
  const scene = element("div", "scene");
  if (stage) scene.append(stage.element);
  else
    scene.append(
      element("p", "sorry", "This browser shows no WebGL, so the tokens cannot be drawn; the plots work."),
    );
  scene.append(legend.element, readout.element);
  const left = element("main");
  left.append(scene, timeline.element);
  const right = element("aside");
  right.setAttribute("aria-label", "Plots");
  right.append(...panels.map((panel) => panel.element));
  const grid = element("div", panels.length ? "grid" : "grid alone");
  grid.append(left, right);
  app.replaceChildren(heading(meta, buttons), grid, footing(meta), tooltip.element, keyboard.element);

  function snapshot() {
    const { colour, theme, highlight, version } = state;
    const moment = { value: clock.value(), position: clock.position(), frame: clock.frame() };
    return { ...moment, playing: clock.playing(), speed: clock.speed(), colour, theme, highlight, version };
  }

  function drawAll(now) {
    waiting = false;
    clock.tick(now);
    const gliding = stage?.glide();
    const current = snapshot();
    for (const part of parts) part.draw(current);
    root.dataset.ready = "1";
    if (current.playing || gliding || stage?.rotating()) redraw();
  }

  function save() {
    if (!stage) return;
    stage.draw(snapshot()); // the picture is gone once the browser has shown it
    stage.canvas.toBlob((blob) => {
      const link = element("a");
      link.href = URL.createObjectURL(blob);
      link.download = `${meta.title || "attnflow"}-${clock.frame()}.png`.replaceAll(/[^\w.-]+/g, "-");
      link.click();
      URL.revokeObjectURL(link.href);
    });
  }

  let hovered = -1;
  if (stage) {
    let pressed = null;
    const { canvas } = stage;
    const hover = (event) => {
      hovered = stage.pick(event.clientX, event.clientY);
      canvas.classList.toggle("over", hovered >= 0);
      tell(event, hovered < 0 ? null : words(hovered, clock.frame()));
    };
    canvas.addEventListener("pointermove", (event) => (event.buttons ? tell(event, null) : hover(event)));
    canvas.addEventListener("pointerleave", (event) => tell(event, null));
    canvas.addEventListener("pointerdown", (event) => (pressed = [event.clientX, event.clientY]));
    canvas.addEventListener("click", (event) => {
      if (pressed && Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) > 5) return;
      hover(event);
      const column = columns[state.colour];
      const values = column.kind === "category" ? column.values(clock.frame()) : null;
      if (hovered < 0 || !values) return choose(null);
      choose(Uint8Array.from(values, (value) => (value === values[hovered] ? 1 : 0)));
    });
  }
  dark.addEventListener("change", ({ matches }) => setTheme(matches ? "dark" : "light"));
  keyboard.listen();
  redraw();

  window.attnflow = {
    frame: clock.frame,
    setFrame: clock.setFrame,
    play: clock.play,
    pause: clock.pause,
    where: (token) => stage?.where(token) ?? null,
    state: () => {
      const { highlight, colour, ...rest } = snapshot();
      const chosen = highlight ? highlight.reduce((sum, one) => sum + one, 0) : 0;
      return {
        ...rest,
        frames: page.frames,
        colour: columns[colour].name,
        chosen,
        hovered,
        webgl: Boolean(stage),
      };
    },
  };
}

const app = document.getElementById("app");
readPage(document).then(
  (page) => open(page, app),
  (error) => {
    app.replaceChildren(
      element(
        "p",
        "sorry",
        `This page's data could not be read: ${error.message}. A browser of 2023 or later is needed.`,
      ),
    );
    throw error;
  },
);
