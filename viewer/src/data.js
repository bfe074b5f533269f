// The page's data: meta as written, arrays decoded on first use. FORMAT.md is the contract.

const TYPES = {
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  float32: Float32Array,
  float64: Float64Array,
};

const size = (shape) => shape.reduce((product, axis) => product * axis, 1);

function fromBase64(text) {
  const letters = atob(text.trim());
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

/** Undoes the filter "delta": low bytes, then high bytes, of differences along the first axis modulo 2^16. */
export function undelta(bytes, Type, count, perFrame) {
  const values = new Type(count);
  for (let i = 0; i < count; i++) values[i] = bytes[i] | (bytes[count + i] << 8);
  for (let i = perFrame; i < count; i++) values[i] += values[i - perFrame];
  return values;
}

function decode(blob, { dtype, shape, offset, filter }) {
  const Type = TYPES[dtype];
  const count = size(shape);
  if (filter === "delta")
    return undelta(new Uint8Array(blob, offset, 2 * count), Type, count, count / shape[0]);
  return new Type(blob, offset, count);
}

/** {meta, frames, shown, dims, array(name), row(name, frame)} of the blocks "meta" and "data" of a document. */
export async function readPage(document) {
  const meta = JSON.parse(document.getElementById("meta").textContent);
  const block = document.getElementById("data");
  const blob = await inflate(fromBase64(block.textContent));
  block.remove(); // megabytes of text that nothing reads again
  const decoded = new Map();
  const array = (name) => {
    if (!decoded.has(name)) decoded.set(name, decode(blob, meta.arrays[name]));
    return decoded.get(name);
  };
  const frames = meta.arrays[meta.time.array].shape[0];
  const { shown } = meta.tokens;
  /** Values of one frame, or all of an array that does not change with time. */
  const row = (name, frame) => {
    const { shape } = meta.arrays[name];
    const values = array(name);
    if (shape.length === 1) return values;
    const width = size(shape) / shape[0];
    return values.subarray(frame * width, (frame + 1) * width);
  };
  return { meta, frames, shown, dims: meta.space.dims, array, row };
}
