// Builds the page into the Python package. The same sources give the same bytes. Beside the page it writes the digests
// of all sources and of all that was built, so that a test can compare them without Node.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";

const target = process.argv[2] ?? "../src/sppnet/studio/static";
mkdirSync(target, { recursive: true });
await build({
  entryPoints: { app: "src/main.tsx" },
  bundle: true,
  minify: true,
  legalComments: "eof",
  target: ["es2022"],
  jsx: "automatic",
  jsxImportSource: "preact",
  outdir: target,
  logLevel: "warning",
});
for (const name of ["index.html", "icon.svg"]) copyFileSync(`src/${name}`, `${target}/${name}`);

const digest = (path) => createHash("sha256").update(readFileSync(path)).digest("hex");
const digests = (folder, names) => Object.fromEntries(names.sort().map((name) => [name, digest(`${folder}/${name}`)]));
const sources = ["build.mjs", "package.json", "package-lock.json", "tsconfig.json", ...readdirSync("src").map((name) => `src/${name}`)];
const built = { sources: digests(".", sources), files: digests(target, ["app.css", "app.js", "icon.svg", "index.html"]) };
writeFileSync(`${target}/built.json`, `${JSON.stringify(built, null, 1)}\n`);
