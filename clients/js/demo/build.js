/** Bundle the demo page into dist/demo: one script, one style sheet, one page; nothing is fetched from anywhere else. */

import { cpSync, mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const target = here("../dist/demo");

mkdirSync(target, { recursive: true });
for (const name of ["index.html", "style.css"]) cpSync(here(name), `${target}/${name}`);
await build({
  entryPoints: [here("page.ts")],
  outfile: `${target}/page.js`,
  bundle: true,
  minify: true,
  sourcemap: true,
  format: "esm",
  target: "es2022",
  logLevel: "warning",
});
