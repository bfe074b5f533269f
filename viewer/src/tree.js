// The merge tree as numbers: children, parents, places on the page, tokens under a merge.

/** Tree of `meta.dendrogram`; ids are 0..n-1 for leaves, n + k for what merge k made. */
export function makeTree(
  page,
  { n, left, right, height, size, leaves, leaf_of: leafOf, leaf_sizes: leafSizes },
) {
  const [lefts, rights] = [page.array(left), page.array(right)];
  const heights = page.array(height);
  const merges = heights.length;
  const total = n + merges;
  const start = page.array(page.meta.time.array)[0];
  const place = new Float64Array(total); // across time: order of the leaves, in [0, n - 1]
  const parent = new Int32Array(total).fill(-1);
  const sizes = new Float64Array(total).fill(1);
  page.array(leaves).forEach((leaf, k) => (place[leaf] = k));
  if (leafSizes) sizes.set(page.array(leafSizes));
  sizes.set(page.array(size), n);
  for (let k = 0; k < merges; k++) {
    place[n + k] = (place[lefts[k]] + place[rights[k]]) / 2;
    parent[lefts[k]] = parent[rights[k]] = n + k;
  }
  const born = (id) => (id < n ? start : Math.max(start, heights[id - n]));
  const ends = (id) => (parent[id] < 0 ? Infinity : heights[parent[id] - n]);

  /** Ids of `id` and all below it. */
  function below(id) {
    const found = [];
    const open = [id];
    while (open.length) {
      const one = open.pop();
      found.push(one);
      if (one >= n) open.push(lefts[one - n], rights[one - n]);
    }
    return found;
  }
  /** 1 for each shown token that is in merge k. */
  function tokens(k) {
    const inside = new Set(below(n + k).filter((id) => id < n));
    return Uint8Array.from(page.array(leafOf), (leaf) => (inside.has(leaf) ? 1 : 0));
  }
  /** Ids that exist at `value`: born, and not merged yet. */
  function alive(value) {
    const found = [];
    for (let id = 0; id < total; id++) if (born(id) <= value && ends(id) > value) found.push(id);
    return found;
  }
  return { n, merges, total, lefts, rights, heights, place, sizes, born, ends, below, tokens, alive };
}
