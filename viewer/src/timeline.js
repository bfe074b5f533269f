// The bar under the stage: play, the slider over time with its marks, speed, and the moment in words.
import { element, momentLine } from "./text.js";
import { timeTicks } from "./ticks.js";

export const SPEEDS = [0.25, 0.5, 1, 2, 4, 8];
const THUMB = 18; // pixels: marks stand under the middle of the thumb

/** {element, draw(state)}; `clock` is moved by what the reader does. */
export function makeTimeline(page, clock) {
  const { time } = page.meta;
  const { times } = clock;
  const [low, high] = [times[0], times[times.length - 1]];
  const bar = element("div", "timeline");

  const play = element("button", "play");
  play.type = "button";
  play.addEventListener("click", () => clock.toggle());

  const track = element("div", "track");
  const slider = element("input");
  Object.assign(slider, {
    type: "range",
    min: low,
    max: high,
    step: "any",
    value: low,
    disabled: times.length < 2,
  });
  slider.setAttribute("aria-label", time.kind === "layer" ? "Layer" : "Time");
  slider.addEventListener("input", () => {
    clock.pause();
    clock.setValue(Number(slider.value));
  });
  const marks = element("div", "marks");
  marks.setAttribute("aria-hidden", "true");
  track.append(slider, marks);

  const label = element("label", "speed");
  const select = element("select");
  select.setAttribute("aria-label", "Speed");
  for (const speed of SPEEDS) {
    const option = element("option", "", `${speed}×`);
    option.value = speed;
    select.append(option);
  }
  select.addEventListener("change", () => clock.setSpeed(Number(select.value)));
  label.append(select);
  const where = element("output", "where");
  bar.append(play, track, label, where);

  function layout() {
    const width = track.clientWidth - THUMB;
    if (width < 40) return;
    const made = timeTicks(time, times, width).map(({ at, text }) => {
      const mark = element("span", "", text);
      mark.style.left = `${THUMB / 2 + (width * (at - low)) / (high - low || 1)}px`;
      return mark;
    });
    marks.replaceChildren(...made);
  }
  new ResizeObserver(layout).observe(track);

  return {
    element: bar,
    slider,
    draw({ value, position, frame, playing, speed }) {
      slider.value = value;
      slider.setAttribute(
        "aria-valuetext",
        `${momentLine(time, times, position)}, frame ${frame + 1} of ${times.length}`,
      );
      play.textContent = playing ? "❚❚" : "▶";
      play.setAttribute("aria-label", playing ? "Pause" : "Play");
      select.value = speed;
      where.textContent = `${frame + 1} / ${times.length}`;
    },
  };
}
