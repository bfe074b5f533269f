// Keys, and the sheet that lists them.
import { SPEEDS } from "./timeline.js";
import { element } from "./text.js";

/** What keys do, in the order of the sheet: [keys as shown, words, keys, action]. */
function bindings(clock, actions) {
  const faster = (by) => {
    const at = SPEEDS.indexOf(clock.speed()) + by;
    clock.setSpeed(SPEEDS[Math.max(0, Math.min(SPEEDS.length - 1, at))]);
  };
  return [
    ["space", "play, pause", [" "], clock.toggle],
    ["← →", "one frame back, on", ["ArrowLeft", "ArrowRight"], (event) => clock.step(direction(event))],
    ["⇧ ← →", "ten frames", [], null],
    [
      "home end",
      "first, last frame",
      ["Home", "End"],
      ({ key }) => clock.step(key === "Home" ? -Infinity : Infinity),
    ],
    ["+ −", "faster, slower", ["+", "=", "-", "_"], ({ key }) => faster("+=".includes(key) ? 1 : -1)],
    ["c", "next colour", ["c"], actions.nextColour],
    ["r", "turn the scene, or stop", ["r"], actions.rotate],
    ["0", "first view again", ["0"], actions.home],
    ["s", "save the stage as a picture", ["s"], actions.save],
    ["t", "light, dark", ["t"], actions.theme],
    ["esc", "no selection", ["Escape"], actions.clear],
    ["?", "this sheet", ["?"], actions.help],
  ];
}

const direction = ({ key, shiftKey }) => (key === "ArrowRight" ? 1 : -1) * (shiftKey ? 10 : 1);

/** The sheet of keys, as a dialog; `listen` starts to act on keys. */
export function makeKeyboard(clock, actions) {
  const sheet = element("dialog", "help");
  sheet.setAttribute("aria-label", "Keys");
  const toggle = () => (sheet.open ? sheet.close() : sheet.showModal());
  const rows = bindings(clock, { ...actions, help: toggle });
  const list = element("dl");
  for (const [keys, words] of rows) {
    const term = element("dt");
    term.append(...keys.split(" ").map((key) => element("kbd", "", key)));
    list.append(term, element("dd", "", words));
  }
  const close = element("button", "", "Close");
  close.type = "button";
  close.addEventListener("click", () => sheet.close());
  const hint = element(
    "p",
    "",
    "Click a token: its cluster. Drag in a plot: time. Click a merge: that moment.",
  );
  sheet.append(element("h2", "", "Keys"), list, hint, close);

  const action = new Map(rows.flatMap(([, , keys, act]) => keys.map((key) => [key, act])));
  function pressed(event) {
    const { key, target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || target.closest("select")) return;
    if (sheet.open && key !== "?") return;
    if (key === " " && target.closest("button, summary")) return;
    const act = action.get(key.length === 1 ? key.toLowerCase() : key);
    if (!act) return;
    event.preventDefault();
    act(event);
  }
  return { element: sheet, toggle, listen: () => window.addEventListener("keydown", pressed) };
}
