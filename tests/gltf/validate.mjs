// node validate.mjs room.glb: the Khronos validator's report on a GLB file, as JSON.
import { readFile } from "node:fs/promises";
import { validateBytes } from "gltf-validator";

const bytes = new Uint8Array(await readFile(process.argv[2]));
console.log(JSON.stringify(await validateBytes(bytes, { maxIssues: 100 }), null, 1));
