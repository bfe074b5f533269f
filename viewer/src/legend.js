// What the colours mean, and the choice of the column that gives them.
import { css, sequential, sizes } from "./colours.js";
import { count, element, number } from "./text.js";

const LINES = 6;

function line(colour, text, detail = "") {
  const item = element("li");
  const swatch = element("span", "swatch");
  swatch.style.backgroundColor = colour;
  item.append(swatch, element("span", "name", text));
  if (detail) item.append(element("span", "detail", detail));
  return item;
}

function categories(column, frame, theme) {
  const found = [...sizes(column.values(frame))].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  const groups = column.labels ? found : found.filter(([, tokens]) => tokens > 1);
  const singles = found.length - groups.length;
  const shown = groups.slice(0, groups.length > LINES + 1 ? LINES : LINES + 1);
  const lines = shown.map(([label, tokens]) =>
    line(css(column.colourOf(label, tokens, theme)), column.textOf(label), count(tokens, "token")),
  );
  if (groups.length > shown.length)
    lines.push(element("li", "more", `and ${groups.length - shown.length} more`));
  if (singles) lines.push(line(css(column.colourOf(-1, 1, theme)), "on its own", count(singles, "token")));
  const list = element("ul");
  list.append(...lines);
  return list;
}

function scale(column, theme) {
  const bar = element("div", "bar");
  const stops = Array.from({ length: 12 }, (_, k) => css(sequential(k / 11, theme)));
  bar.style.backgroundImage = `linear-gradient(to right, ${stops.join(", ")})`;
  const ends = element("div", "ends");
  ends.append(element("span", "", number(column.low)), element("span", "", number(column.high)));
  const box = element("div");
  box.append(bar, ends);
  if (column.unit) box.append(element("div", "detail", column.unit));
  return box;
}

/** The legend over the stage; `choose(k)` is called with the number of the wanted column. */
export function makeLegend(columns, choose) {
  const box = element("div", "legend");
  const label = element("label", "", "Colour");
  const select = element("select");
  select.setAttribute("aria-label", "Colour tokens by");
  columns.forEach((column, k) => {
    const option = element("option", "", column.name);
    option.value = k;
    select.append(option);
  });
  select.addEventListener("change", () => choose(Number(select.value)));
  label.append(select);
  const body = element("div", "body");
  box.append(label, body);
  let drawn = "";
  return {
    element: box,
    draw({ frame, colour, theme }) {
      const column = columns[colour];
      const wanted = `${colour} ${theme} ${column.kind === "category" ? frame : ""}`;
      if (wanted === drawn) return;
      drawn = wanted;
      select.value = colour;
      if (column.kind === "category") body.replaceChildren(categories(column, frame, theme));
      else if (column.kind === "number") body.replaceChildren(scale(column, theme));
    },
  };
}
