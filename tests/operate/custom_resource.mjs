// Validates custom resources (a JSON list on standard input) with the validators that
// @kubernetes-models generates from the CRDs. They accept unknown fields, but read only the fields
// they know, so a field that was not read is one that the CRD does not have.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const packages = {
  "keda.sh/v1alpha1": ["keda", "KedaV1alpha1"],
  "monitoring.coreos.com/v1": ["prometheus-operator", "MonitoringV1"],
  "gateway.networking.k8s.io/v1": ["gateway-api", "ApisV1"],
};

function watched(value, path, read) {
  if (value === null || typeof value !== "object") return value;
  return new Proxy(value, {
    get(target, key) {
      if (typeof key !== "string" || !Object.hasOwn(target, key)) return target[key];
      read.add(`${path}/${key}`);
      return watched(target[key], `${path}/${key}`, read);
    },
  });
}

function* unread(value, path, read) {
  if (value === null || typeof value !== "object") return;
  for (const key of Object.keys(value)) {
    const here = `${path}/${key}`;
    if (read.has(here) || Array.isArray(value)) yield* unread(value[key], here, read);
    else yield here;
  }
}

let wrong = 0;
for (const resource of JSON.parse(readFileSync(0, "utf8"))) {
  const [name, version] = packages[resource.apiVersion];
  const folder = join(process.env.WATCHWORD_NODE_MODULES, "@kubernetes-models", name, "_schemas");
  const file = readdirSync(folder).find((file) => file.endsWith(`${version}${resource.kind}.js`));
  const { validate } = await import(pathToFileURL(join(folder, file)));
  const read = new Set();
  const problems = validate(watched(resource, "", read)) ? [] : validate.errors.map(
    (error) => `${error.instancePath}: ${error.keyword} ${JSON.stringify(error.params)}`,
  );
  problems.push(...[...unread(resource, "", read)].map((path) => `${path}: no such field`));
  for (const problem of problems) console.log(`${resource.kind} ${resource.metadata?.name} ${problem}`);
  wrong += problems.length;
}
process.exit(wrong ? 1 : 0);
