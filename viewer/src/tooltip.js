// Words at the pointer, and the words for a token.
import { element, number } from "./text.js";

/** {element, show(event, lines)}; `lines` null hides it. The first line is set off. */
export function makeTooltip() {
  const box = element("div", "tooltip");
  box.setAttribute("role", "tooltip");
  box.hidden = true;
  return {
    element: box,
    show(event, lines) {
      box.hidden = !lines;
      if (!lines) return;
      box.replaceChildren(...lines.map((line, k) => element("div", k ? "" : "first", line)));
      const { offsetWidth: width, offsetHeight: height } = box;
      const left = Math.min(event.clientX + 14, window.innerWidth - width - 8);
      const top =
        event.clientY + 16 + height > window.innerHeight ? event.clientY - height - 12 : event.clientY + 16;
      box.style.transform = `translate(${Math.max(8, left)}px, ${Math.max(8, top)}px)`;
    },
  };
}

/** A function (token, frame) -> lines: its name, its cluster, its values. */
export function tokenWords(page, columns) {
  const { tokens } = page.meta;
  const index = tokens.index ? page.array(tokens.index) : null;
  return (i, frame) => {
    const which = index ? index[i] : i;
    const lines = tokens.names ? [tokens.names[i], `token ${which}`] : [`token ${which}`];
    for (const column of columns) {
      const values = column.values(frame);
      if (!values) continue;
      if (column.kind === "number")
        lines.push(`${column.name}: ${number(values[i])}${column.unit ? ` ${column.unit}` : ""}`);
      else if (column.labels) lines.push(`${column.name}: ${column.textOf(values[i])}`);
      else {
        let together = 0;
        for (const value of values) if (value === values[i]) together++;
        lines.push(together > 1 ? `${column.textOf(values[i])}, ${together} tokens` : "on its own");
      }
    }
    return lines;
  };
}
