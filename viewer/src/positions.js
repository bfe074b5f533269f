// Where tokens are between two frames: on the circle and the sphere they move along it.

/** A place in [-1, 1], far apart for neighbouring numbers: tokens at one place of a ring lie side by side. */
const golden = (i) => 2 * ((i * 0.6180339887498949) % 1) - 1;

/** Largest coordinate of any token in any frame. */
function extent(values, scale) {
  let largest = 1;
  for (const value of values) if (value > largest || -value > largest) largest = Math.abs(value);
  return largest / scale;
}

/**
 * {at(position, out), unit, thickness}: `at` writes x, y, z of all tokens at a fractional frame, in units where the
 * scene has radius 1; `unit` is that unit in the run's own; `thickness` is half the width of a ring.
 */
export function makePositions(page) {
  const { meta, dims, shown } = page;
  const { positions, scale } = meta.tokens;
  const { kind } = meta.space;
  const unit = kind === "axes" ? extent(page.array(positions), scale) : 1;
  const thickness = Math.min(0.045, 0.008 * Math.sqrt(shown));
  const onBall = kind !== "axes";

  function at(position, out) {
    const low = Math.floor(position);
    const share = position - low;
    const from = page.row(positions, low);
    const to = share > 0 ? page.row(positions, low + 1) : from;
    const factor = 1 / (scale * unit);
    for (let i = 0; i < shown; i++) {
      let square = 0;
      for (let k = 0; k < dims; k++) {
        const x = (from[i * dims + k] + share * (to[i * dims + k] - from[i * dims + k])) * factor;
        out[3 * i + k] = x;
        square += x * x;
      }
      if (dims === 2) out[3 * i + 2] = 0;
      if (onBall && square > 1e-12) {
        const radius = kind === "circle" ? 1 + thickness * golden(i) : 1;
        const lift = radius / Math.sqrt(square);
        for (let k = 0; k < dims; k++) out[3 * i + k] *= lift;
      }
    }
  }
  return { at, unit, thickness };
}
