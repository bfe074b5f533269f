// What tokens lie on: the globe with its lines, the ring, or the axes.
import {
  BufferGeometry,
  DoubleSide,
  Float32BufferAttribute,
  Group,
  LineSegments,
  Mesh,
  RingGeometry,
  ShaderMaterial,
  SphereGeometry,
  Vector3,
} from "three";
import { GLOBE, LINES } from "./shaders.js";

function segments(points, uniforms, strength) {
  const geometry = new BufferGeometry();
  geometry.setAttribute("position", new Float32BufferAttribute(points, 3));
  const material = new ShaderMaterial({
    uniforms: { ...uniforms, strength: { value: strength } },
    vertexShader: LINES.vertex,
    fragmentShader: LINES.fragment,
    transparent: true,
    depthWrite: false,
  });
  const lines = new LineSegments(geometry, material);
  lines.renderOrder = 1;
  lines.frustumCulled = false;
  return lines;
}

/** Line segments of the circle that `place(angle)` runs through. */
function loop(place, pieces = 144) {
  const points = [];
  for (let k = 0; k < pieces; k++)
    points.push(...place((2 * Math.PI * k) / pieces), ...place((2 * Math.PI * (k + 1)) / pieces));
  return points;
}

function globe(uniforms) {
  const ball = new Mesh(
    new SphereGeometry(1, 96, 64),
    new ShaderMaterial({
      uniforms,
      vertexShader: GLOBE.vertex,
      fragmentShader: GLOBE.fragment,
      transparent: true,
      depthWrite: false,
    }),
  );
  const lines = [];
  for (let latitude = -60; latitude <= 60; latitude += 30) {
    const [c, s] = [Math.cos((latitude * Math.PI) / 180), Math.sin((latitude * Math.PI) / 180)];
    lines.push(...loop((angle) => [c * Math.cos(angle), c * Math.sin(angle), s]));
  }
  for (let longitude = 0; longitude < 180; longitude += 30) {
    const [c, s] = [Math.cos((longitude * Math.PI) / 180), Math.sin((longitude * Math.PI) / 180)];
    lines.push(...loop((angle) => [c * Math.cos(angle), s * Math.cos(angle), Math.sin(angle)]));
  }
  // The limb: where lines of sight touch the globe. It faces the camera and moves with its distance.
  const limb = segments(
    loop((angle) => [Math.cos(angle), Math.sin(angle), 0]),
    { ...uniforms, kind: { value: 0 } },
    [0, 0.9],
  );
  limb.onBeforeRender = (_renderer, _scene, camera) => {
    const distance = camera.position.length();
    limb.position.copy(camera.position).multiplyScalar(1 / distance ** 2);
    limb.quaternion.copy(camera.quaternion);
    limb.scale.setScalar(Math.sqrt(1 - 1 / distance ** 2));
    limb.updateMatrixWorld();
    limb.modelViewMatrix.multiplyMatrices(camera.matrixWorldInverse, limb.matrixWorld);
  };
  const group = new Group();
  group.add(ball, segments(lines, uniforms, [0.12, 0.45]), limb);
  return { group, labels: [] };
}

function ring(uniforms, thickness) {
  const width = thickness + 0.03;
  const band = new Mesh(
    new RingGeometry(1 - width, 1 + width, 256),
    new ShaderMaterial({
      uniforms: { ...uniforms, strength: { value: [0, 0.16] } },
      vertexShader: LINES.vertex,
      fragmentShader: LINES.fragment,
      transparent: true,
      depthWrite: false,
      side: DoubleSide,
    }),
  );
  const marks = [];
  for (let k = 0; k < 12; k++) {
    const [c, s] = [Math.cos((k * Math.PI) / 6), Math.sin((k * Math.PI) / 6)];
    const inner = 1 - width - (k % 3 === 0 ? 0.06 : 0.03);
    marks.push(c * (1 - width), s * (1 - width), 0, c * inner, s * inner, 0);
  }
  const group = new Group();
  group.add(band, segments(marks, uniforms, [0, 0.8]));
  const label = (text, x, y) => ({ text, place: new Vector3(x * (0.8 - width), y * (0.8 - width), 0) });
  return { group, labels: [label("0°", 1, 0), label("90°", 0, 1), label("180°", -1, 0), label("270°", 0, -1)] };
}

function axes(uniforms, dims, variance) {
  const lines = [];
  const labels = [];
  for (let k = 0; k < dims; k++) {
    const tip = [0, 0, 0];
    tip[k] = 1.08;
    lines.push(...tip.map((x) => -x), ...tip);
    const place = new Vector3(...tip);
    const share = variance ? ` · ${(100 * variance[k]).toFixed(variance[k] < 0.1 ? 1 : 0)} %` : "";
    labels.push({ text: `axis ${k + 1}${share}`, place: place.multiplyScalar(1.05) });
  }
  const group = new Group();
  group.add(segments(lines, uniforms, [0.5, 1]));
  if (dims === 3) {
    const floor = [];
    const edge = 0.8;
    for (let k = -4; k <= 4; k++) {
      const at = (edge * k) / 4;
      floor.push(at, -edge, -edge, at, edge, -edge, -edge, at, -edge, edge, at, -edge);
    }
    group.add(segments(floor, uniforms, [0.22, 0.42]));
  } else {
    const grid = [];
    for (let k = -4; k <= 4; k++) grid.push(k / 4, -1, 0, k / 4, 1, 0, -1, k / 4, 0, 1, k / 4, 0);
    group.add(segments(grid, uniforms, [0.25, 0.25]));
  }
  return { group, labels };
}

/** {group, labels} of a space: three.js objects, and words with their places. */
export function makeSurround({ kind, dims, variance }, uniforms, thickness) {
  if (kind === "sphere") return globe(uniforms);
  if (kind === "circle") return ring(uniforms, thickness);
  return axes(uniforms, dims, variance);
}
