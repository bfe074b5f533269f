// Bundles src/ into the two files that every page carries inline; --check compares them with the committed ones.
import { readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const here = (path) => new URL(path, import.meta.url);
const assets = new URL("../src/attnflow/view/assets/", import.meta.url);
const licence = readFileSync(here("node_modules/three/LICENSE"), "utf8").replaceAll("©", "(c)").trim();
const notice = `/*!\nthree.js, https://threejs.org\n\n${licence}\n*/`;

const { outputFiles } = await build({
  entryPoints: { viewer: here("src/main.js").pathname, "viewer-style": here("src/viewer.css").pathname },
  bundle: true,
  minify: true,
  write: false,
  outdir: here("out").pathname,
  absWorkingDir: here(".").pathname,
  format: "iife",
  target: "es2022",
  legalComments: "none",
  banner: { js: notice },
});
const text = (suffix) => outputFiles.find((file) => file.path.endsWith(suffix)).text;
const built = { "viewer.js": text("viewer.js"), "viewer.css": text("viewer-style.css") };

// Both stand inside HTML: neither may end its own block.
for (const [name, content] of Object.entries(built))
  if (/<\/(script|style)|<!--/i.test(content)) throw new Error(`${name} would end its block in the page.`);

if (process.argv.includes("--check")) {
  const stale = Object.keys(built).filter(
    (name) => readFileSync(new URL(name, assets), "utf8") !== built[name],
  );
  if (stale.length) {
    console.error(`Not a fresh build: ${stale.join(", ")}. Run \`npm run build\` and commit.`);
    process.exit(1);
  }
} else {
  for (const [name, content] of Object.entries(built)) writeFileSync(new URL(name, assets), content);
}
for (const [name, content] of Object.entries(built))
  console.log(`${name} ${(content.length / 1024).toFixed(0)} kB`);
