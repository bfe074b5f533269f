// The stage: tokens in WebGL, halos that show how many share a place, and what is under the pointer.
import {
  BufferAttribute,
  BufferGeometry,
  Color,
  ColorManagement,
  DynamicDrawUsage,
  OrthographicCamera,
  PerspectiveCamera,
  Points,
  Scene,
  ShaderMaterial,
  Vector2,
  Vector3,
  WebGLRenderer,
  MOUSE,
  TOUCH,
} from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";
import { sizes } from "./colours.js";
import { makePositions } from "./positions.js";
import { HALOS, TOKENS } from "./shaders.js";
import { makeSurround } from "./surround.js";
import { element } from "./text.js";

ColorManagement.enabled = false; // colours go to the screen as they are written
const KIND = { circle: 0, sphere: 1, axes: 2 };
const HALF_ANGLE = 14; // degrees, of the perspective view
const MOST_HALOS = 2048;
const REACH = { circle: 1.2, sphere: 1.12, axes: 1.42 }; // radius of what has to be in view
const START = new Vector3(0.62, -1, 0.5).normalize(); // from where the scene is seen first

function cloud(count, shader, uniforms, options) {
  const geometry = new BufferGeometry();
  const attribute = (name, array, width, normalized = false) => {
    const made = new BufferAttribute(array, width, normalized).setUsage(DynamicDrawUsage);
    geometry.setAttribute(name, made);
    return made;
  };
  const place = attribute("position", new Float32Array(3 * count), 3);
  const tint = attribute("tint", new Uint8Array(3 * count), 3, true);
  const look = attribute("look", new Float32Array(2 * count), 2);
  const material = new ShaderMaterial({
    uniforms,
    vertexShader: shader.vertex,
    fragmentShader: shader.fragment,
    transparent: true,
    ...options,
  });
  const points = new Points(geometry, material);
  points.frustumCulled = false;
  return { points, geometry, place, tint, look };
}

function camera3d() {
  return new PerspectiveCamera(2 * HALF_ANGLE, 1, 0.05, 100);
}

/** Radius of one token on the stage: smaller the more there are. */
export function tokenRadius(shown) {
  return Math.max(0.009, Math.min(0.034, 0.4 / Math.sqrt(shown)));
}

/**
 * The stage of a page. `columns` are its colours, `redraw` asks for another drawing. `draw(state)` draws a moment,
 * `pick(x, y)` is the token under a point of the window or -1, `where(i)` is the point of a token.
 */
export function makeStage(page, columns, { redraw, calm }) {
  const { space, tokens } = page.meta;
  const { shown } = page;
  const solid = page.dims === 3;
  const box = element("div", "stage");
  const canvas = element("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute(
    "aria-label",
    `${tokens.shown} tokens on ${space.kind === "axes" ? "principal axes" : `the ${space.kind}`}`,
  );
  box.append(canvas);
  const renderer = new WebGLRenderer({ canvas, antialias: true, alpha: true });
  renderer.setClearAlpha(0);

  const positions = makePositions(page);
  const common = {
    nearer: { value: 0 },
    depths: { value: new Vector2(0, 1) },
    kind: { value: solid ? KIND[space.kind] : 0 },
    unit: { value: 1 },
    largest: { value: 256 },
    ground: { value: new Color() },
    line: { value: new Color() },
    fade: { value: space.kind === "sphere" ? 0.42 : 0.5 },
  };
  const balls = cloud(shown, TOKENS, common, { alphaToCoverage: solid, depthTest: solid, depthWrite: solid });
  const halos = cloud(MOST_HALOS, HALOS, common, { depthTest: false, depthWrite: false });
  halos.points.renderOrder = 2;
  balls.points.renderOrder = 3;
  const surround = makeSurround(space, common, positions.thickness);
  const scene = new Scene();
  scene.add(surround.group, halos.points, balls.points);
  const labels = surround.labels.map(({ text, place }) => {
    const made = element("span", "axis-label", text);
    box.append(made);
    return { made, place };
  });

  const camera = solid ? camera3d() : new OrthographicCamera(-1, 1, 1, -1, -10, 10);
  const controls = space.kind === "circle" ? null : new OrbitControls(camera, canvas);
  function home() {
    if (solid) camera.up.set(0, 0, 1);
    camera.position.copy(solid ? START.clone().multiplyScalar(fitted()) : new Vector3(0, 0, 1));
    camera.zoom = 1;
    controls?.target.set(0, 0, 0);
    camera.lookAt(0, 0, 0);
    controls?.update();
    camera.updateProjectionMatrix();
    redraw();
  }
  function fitted() {
    const half = Math.atan(Math.tan((HALF_ANGLE * Math.PI) / 180) * Math.min(1, camera.aspect));
    return REACH[space.kind] / Math.sin(half);
  }
  if (controls) {
    controls.enableDamping = !calm;
    controls.dampingFactor = 0.12;
    controls.autoRotateSpeed = 1.2;
    controls.enablePan = !solid;
    controls.enableRotate = solid;
    if (!solid) {
      controls.mouseButtons.LEFT = MOUSE.PAN;
      controls.touches.ONE = TOUCH.PAN;
      controls.screenSpacePanning = true;
    }
    controls.addEventListener("change", redraw);
  }

  let width = 0;
  let height = 0;
  function resize() {
    const [w, h] = [box.clientWidth, box.clientHeight];
    if (!w || !h || (w === width && h === height)) return;
    const before = solid && width ? camera.position.length() / fitted() : 1;
    [width, height] = [w, h];
    renderer.setPixelRatio(Math.min(2, window.devicePixelRatio));
    renderer.setSize(w, h, false);
    if (solid) {
      camera.aspect = w / h;
      camera.position.setLength((camera.position.length() ? before : 1) * fitted());
      if (controls) [controls.minDistance, controls.maxDistance] = [1.25, 4 * fitted()];
    } else {
      const reach = REACH[space.kind] / Math.min(1, w / h);
      [camera.top, camera.bottom, camera.left, camera.right] = [
        reach,
        -reach,
        (-reach * w) / h,
        (reach * w) / h,
      ];
    }
    camera.updateProjectionMatrix();
    redraw();
  }
  new ResizeObserver(resize).observe(box);

  const radius = tokenRadius(shown);
  const bare = columns.find(
    ({ name, kind, labels: fixed }) => name === "cluster" && kind === "category" && !fixed,
  );
  let painted = "";
  let placed = -1;
  let circled = "";

  function paint({ frame, colour, theme, highlight, version }) {
    const wanted = [frame, colour, theme, version].join();
    if (wanted === painted) return;
    painted = wanted;
    columns[colour].paint(frame, theme, balls.tint.array);
    balls.tint.needsUpdate = true;
    const mass = tokens.mass ? page.row(tokens.mass, frame) : null;
    for (let i = 0; i < shown; i++) {
      const chosen = !highlight || highlight[i];
      balls.look.array[2 * i] =
        radius * (mass ? Math.min(5, Math.sqrt(mass[i])) : 1) * (highlight && chosen ? 1.25 : 1);
      balls.look.array[2 * i + 1] = chosen ? 1 : 0;
    }
    balls.look.needsUpdate = true;
  }

  /** Discs under clusters, with area as their number of tokens; faint where a cluster is wide. */
  function surroundClusters({ frame, colour, theme, highlight }) {
    if (!bare) return halos.geometry.setDrawRange(0, 0);
    const values = bare.values(frame);
    const found = [...sizes(values)]
      .filter(([, size]) => size > 1)
      .sort((a, b) => b[1] - a[1])
      .slice(0, MOST_HALOS);
    const slot = new Map(found.map(([label], k) => [label, k]));
    const sums = new Float64Array(5 * found.length); // x, y, z, squared length, chosen
    const at = balls.place.array;
    for (let i = 0; i < shown; i++) {
      const k = slot.get(values[i]);
      if (k === undefined) continue;
      for (let c = 0; c < 3; c++) {
        sums[5 * k + c] += at[3 * i + c];
        sums[5 * k + 3] += at[3 * i + c] ** 2;
      }
      sums[5 * k + 4] += !highlight || highlight[i] ? 1 : 0;
    }
    found.forEach(([label, size], k) => {
      const mean = [0, 1, 2].map((c) => sums[5 * k + c] / size);
      const length = Math.hypot(...mean) || 1;
      halos.place.array.set(
        mean.map((x) => (space.kind === "axes" ? x : x / length)),
        3 * k,
      );
      halos.tint.array.set(bare.colourOf(label, columns[colour] === bare ? size : 1, theme), 3 * k);
      const spread = Math.max(0, sums[5 * k + 3] / size - length ** 2); // mean squared distance from the mean
      const tight = Math.max(0, 1 - spread / 0.04);
      halos.look.array.set(
        [radius + 0.21 * Math.sqrt(size / shown), tight * (sums[5 * k + 4] ? 1 : 0.15)],
        2 * k,
      );
    });
    halos.geometry.setDrawRange(0, found.length);
    halos.place.needsUpdate = halos.tint.needsUpdate = halos.look.needsUpdate = true;
  }

  function look(theme) {
    const style = getComputedStyle(box);
    common.ground.value.setStyle(style.getPropertyValue("--stage").trim());
    common.line.value.setStyle(style.getPropertyValue("--line").trim());
    common.theme = theme;
  }

  function projected(place, out) {
    out.copy(place).project(camera);
    return out.set(((out.x + 1) / 2) * width, ((1 - out.y) / 2) * height, out.z);
  }

  const spot = new Vector3();
  function draw(state) {
    resize();
    if (common.theme !== state.theme) look(state.theme);
    if (placed !== state.position) {
      positions.at(state.position, balls.place.array);
      balls.place.needsUpdate = true;
      placed = state.position;
    }
    paint(state);
    const clusters = [state.position, state.colour, state.theme, state.version].join();
    if (circled !== clusters) surroundClusters(state);
    circled = clusters;
    const distance = camera.position.length();
    common.nearer.value = 1 / Math.max(distance, 1.0001);
    common.depths.value.set(distance - 1, distance + 1.3);
    const ratio = renderer.getPixelRatio();
    common.unit.value = solid
      ? (height * ratio) / (2 * Math.tan((HALF_ANGLE * Math.PI) / 180))
      : ((height * ratio) / (camera.top - camera.bottom)) * camera.zoom;
    renderer.render(scene, camera);
    for (const { made, place } of labels) {
      projected(place, spot);
      made.style.transform = `translate(-50%, -50%) translate(${spot.x.toFixed(1)}px, ${spot.y.toFixed(1)}px)`;
    }
  }

  const place = new Vector3();
  /** Token nearest to a point of the window within a few pixels, those that face the reader first; else -1. */
  function pick(x, y) {
    const frame = canvas.getBoundingClientRect();
    const at = balls.place.array;
    const eye = camera.position;
    let best = -1;
    let least = Infinity;
    for (let i = 0; i < shown; i++) {
      projected(place.fromArray(at, 3 * i), spot);
      const apart = Math.hypot(spot.x - (x - frame.left), spot.y - (y - frame.top));
      if (apart > 14) continue;
      const behind = space.kind === "sphere" && place.fromArray(at, 3 * i).dot(eye) < 1;
      const cost = apart + (behind ? 100 : 0) + (solid ? 2 * spot.z : 0);
      if (cost < least) [best, least] = [i, cost];
    }
    return best;
  }
  function where(i) {
    const frame = canvas.getBoundingClientRect();
    projected(place.fromArray(balls.place.array, 3 * i), spot);
    return [frame.left + spot.x, frame.top + spot.y];
  }

  camera.position.copy(START);
  resize();
  home();
  return {
    element: box,
    canvas,
    draw,
    pick,
    where,
    home,
    unit: positions.unit,
    rotating: () => Boolean(controls?.autoRotate),
    rotate(on) {
      if (controls && solid) controls.autoRotate = on;
      redraw();
    },
    /** Lets the camera glide on; true if it moved. */
    glide: () => Boolean(controls && solid && controls.update()),
  };
}
