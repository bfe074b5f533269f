// GLSL of the stage: tokens as shaded balls, halos of clusters, the globe and its lines.

const DISTANCE = `
  uniform float nearer;   // on a globe: 1 / distance of the camera, the cosine at which the horizon lies
  uniform vec2 depths;    // elsewhere: nearest and farthest depth of the scene
  uniform int kind;       // 0 flat, 1 globe, 2 axes
  float presence(vec3 place, vec4 seen) {
    if (kind == 1) {
      vec3 toCamera = normalize(cameraPosition);
      return smoothstep(-0.25, 0.1, dot(normalize(place), toCamera) - nearer);
    }
    if (kind == 2) return 1.0 - smoothstep(depths.x, depths.y, -seen.z);
    return 1.0;
  }
`;

const SPRITE = `
  uniform float unit;     // pixels per unit of length at distance 1
  uniform float largest;  // of a sprite, in pixels
  float pixels(float radius, vec4 seen) {
    float shrink = kind == 0 ? 1.0 : 1.0 / -seen.z;
    return clamp(2.0 * radius * unit * shrink, 2.0, largest);
  }
`;

export const TOKENS = {
  vertex: `
    ${DISTANCE}${SPRITE}
    attribute vec3 tint;
    attribute vec2 look;   // radius; 1 shown in full, 0 dimmed
    varying vec3 shade;
    varying float near;
    varying float full;
    varying float wide;
    void main() {
      vec4 seen = modelViewMatrix * vec4(position, 1.0);
      gl_Position = projectionMatrix * seen;
      near = presence(position, seen);
      full = look.y;
      shade = tint;
      wide = pixels(look.x * mix(0.82, 1.0, near), seen);
      gl_PointSize = wide;
    }
  `,
  fragment: `
    uniform vec3 ground;
    uniform float fade;    // share of the colour that the farthest token keeps
    varying vec3 shade;
    varying float near;
    varying float full;
    varying float wide;
    void main() {
      vec2 at = gl_PointCoord * 2.0 - 1.0;
      float r = length(at);
      float soft = 2.0 / wide;
      float inside = 1.0 - smoothstep(1.0 - soft, 1.0, r);
      if (inside < 0.02) discard;
      vec3 normal = vec3(at.x, -at.y, sqrt(max(0.0, 1.0 - r * r)));
      float light = dot(normal, normalize(vec3(-0.45, 0.6, 0.75)));
      vec3 ball = shade * (0.78 + 0.26 * light) + 0.22 * pow(max(light, 0.0), 14.0);
      float rim = smoothstep(1.0 - 2.4 * soft, 1.0 - 1.2 * soft, r);
      rim *= smoothstep(7.0, 12.0, wide); // no outline where it would hide the ball
      vec3 colour = mix(ball, ground, 0.75 * rim);
      colour = mix(ground, colour, mix(fade, 1.0, near) * mix(0.16, 1.0, full));
      gl_FragColor = vec4(colour, inside);
    }
  `,
};

export const HALOS = {
  vertex: `
    ${DISTANCE}${SPRITE}
    attribute vec3 tint;
    attribute vec2 look;   // radius, strength
    varying vec3 shade;
    varying float strength;
    varying float wide;
    void main() {
      vec4 seen = modelViewMatrix * vec4(position, 1.0);
      gl_Position = projectionMatrix * seen;
      shade = tint;
      strength = look.y * mix(0.4, 1.0, presence(position, seen));
      wide = pixels(look.x, seen);
      gl_PointSize = wide;
    }
  `,
  fragment: `
    varying vec3 shade;
    varying float strength;
    varying float wide;
    void main() {
      float r = length(gl_PointCoord * 2.0 - 1.0);
      float soft = 2.0 / wide;
      float inside = 1.0 - smoothstep(1.0 - soft, 1.0, r);
      float ring = smoothstep(1.0 - 3.0 * soft, 1.0 - 1.5 * soft, r);
      gl_FragColor = vec4(shade, inside * strength * mix(0.17, 0.6, ring));
    }
  `,
};

export const GLOBE = {
  vertex: `
    varying vec3 normalSeen;
    varying vec3 toCamera;
    void main() {
      vec4 seen = modelViewMatrix * vec4(position, 1.0);
      normalSeen = normalMatrix * normal;
      toCamera = -seen.xyz;
      gl_Position = projectionMatrix * seen;
    }
  `,
  fragment: `
    uniform vec3 line;
    varying vec3 normalSeen;
    varying vec3 toCamera;
    void main() {
      float facing = max(0.0, dot(normalize(normalSeen), normalize(toCamera)));
      float lit = 0.5 + 0.5 * dot(normalize(normalSeen), normalize(vec3(-0.45, 0.6, 0.75)));
      float edge = pow(1.0 - facing, 3.0);
      gl_FragColor = vec4(line, 0.05 + 0.10 * (1.0 - lit) + 0.28 * edge);
    }
  `,
};

export const LINES = {
  vertex: `
    ${DISTANCE}
    varying float near;
    void main() {
      vec4 seen = modelViewMatrix * vec4(position, 1.0);
      near = presence(position, seen);
      gl_Position = projectionMatrix * seen;
    }
  `,
  fragment: `
    uniform vec3 line;
    uniform vec2 strength;  // far, near
    varying float near;
    void main() { gl_FragColor = vec4(line, mix(strength.x, strength.y, near)); }
  `,
};
