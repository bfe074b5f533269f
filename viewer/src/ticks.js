// Where an axis is marked, and how the marks are called.
import { number, power } from "./text.js";

/** Multiples of 1, 2 or 5 times a power of ten inside [low, high], about `wanted` of them. */
export function niceTicks(low, high, wanted = 5, whole = false) {
  const span = high - low;
  if (!(span > 0)) return [low];
  const rough = span / wanted;
  const scale = 10 ** Math.floor(Math.log10(rough));
  let step = scale * ([1, 2, 5, 10].find((factor) => factor * scale >= rough * 0.999) ?? 10);
  if (whole) step = Math.max(1, Math.round(step));
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) ticks.push(k * step);
  return ticks.map((tick) => (Math.abs(tick) < 1e-12 * span ? 0 : Number(tick.toPrecision(12))));
}

/** Powers of ten inside [low, high], both in log10. */
export function powerTicks(low, high, wanted = 5) {
  const whole = niceTicks(low, high, wanted, true);
  return whole.map((exponent) => ({ at: exponent, text: power(exponent) }));
}

/** Marks of the time axis over `pixels`: powers of ten, layers by name, or plain numbers. */
export function timeTicks(time, times, pixels) {
  const low = times[0];
  const high = times[times.length - 1];
  const wanted = Math.max(2, Math.floor(pixels / 52));
  if (time.kind === "layer" || time.ticks) return layerTicks(time, times, pixels);
  if (!time.log) return niceTicks(low, high, wanted).map((at) => ({ at, text: number(at) }));
  if (!time.zero || times.length < 2) return powerTicks(low, high, wanted);
  const apart = ((high - low) * 30) / Math.max(pixels, 1); // the made-up place of t = 0 gets its own mark
  const powers = powerTicks(times[1], high, wanted).filter(({ at }) => at - low > apart);
  return [{ at: low, text: "0" }, ...powers];
}

function layerTicks(time, times, pixels) {
  const names = time.ticks ?? Array.from(times, (_, k) => String(k));
  const widest = Math.min(90, 7 * Math.max(...names.map((name) => name.length)) + 14);
  const room = Math.max(1, Math.floor(pixels / widest));
  const stride =
    [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 50, 100].find((k) => names.length / k <= room) ?? names.length;
  const short = (name) => (name.length > 12 ? `${name.slice(0, 11)}…` : name);
  return names.map((name, k) => ({ at: times[k], text: short(name), k })).filter(({ k }) => k % stride === 0);
}

/** Label of the time axis: its marks are powers of ten where values are log10 t, so the label is t. */
export function timeLabel(time, label = time.label) {
  return time.log && label === time.label ? "time t" : label;
}
