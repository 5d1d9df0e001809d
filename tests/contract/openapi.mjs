// Checks replies against Neon's OpenAPI document. Argument: a file with [{operation, status, body}].
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import Ajv from "ajv";
import addFormats from "ajv-formats";
import { parse } from "yaml";

const replies = JSON.parse(readFileSync(process.argv[2], "utf8"));
const require = createRequire(import.meta.url);
const folder = require.resolve("@neondatabase/api-client").split("/dist/")[0];
const document = parse(readFileSync(`${folder}/public-v2-for-users.gen.yaml`, "utf8"));

const ajv = new Ajv({ strict: false, allErrors: true, validateFormats: true });
addFormats(ajv);
ajv.addSchema(document, "neon");

const operations = {};
for (const [path, item] of Object.entries(document.paths)) {
  for (const [method, operation] of Object.entries(item)) {
    if (operation.operationId) operations[operation.operationId] = { path, method };
  }
}

const pointer = (...parts) => "neon#/" + parts.map((part) => encodeURIComponent(part.replaceAll("~", "~0").replaceAll("/", "~1"))).join("/");
let failures = 0;
for (const { operation, status, body } of replies) {
  const known = operations[operation];
  if (!known) {
    console.log(`${operation}: is not in the document`);
    failures += 1;
    continue;
  }
  const responses = document.paths[known.path][known.method].responses;
  let name = responses[status] ? String(status) : "default";
  let parts = ["paths", known.path, known.method, "responses", name];
  let response = responses[name];
  if (response.$ref) {
    parts = response.$ref.slice(2).split("/");
    response = parts.reduce((value, part) => value[part], document);
  }
  if (!response.content) {
    if (body !== null) {
      console.log(`${operation} ${status}: expected no body`);
      failures += 1;
    }
    continue;
  }
  const validate = ajv.compile({ $ref: pointer(...parts, "content", "application/json", "schema") });
  if (!validate(body)) {
    failures += 1;
    console.log(`${operation} ${status}: ${ajv.errorsText(validate.errors, { separator: "\n  " })}`);
  }
}
if (failures > 0) process.exit(1);
console.log(`ok ${replies.length} replies`);
