// The page of the API: reads openapi.json, shows each model with a curl line, and sends a request for the reader.
// Texts of the document are only ever set as text, so that no name of a model can become markup.
"use strict";

const base = new URL("./", document.baseURI);
let key = "";
let isOpen = true;

function byId(id) {
  return document.getElementById(id);
}

// An element with a text or children: element("p", {className: "note"}, "text", child).
function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function headers() {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

// A curl command. Without a body it is a GET.
function curl(path, { body, method, more = [] } = {}) {
  const parts = [`curl ${method ? `-X ${method} ` : ""}${quoted(new URL(path, base).href)}`];
  if (!isOpen) parts.push('-H "Authorization: Bearer $HEADRACE_API_KEY"');
  parts.push(...more.map((header) => `-H ${quoted(header)}`));
  if (body !== undefined) parts.push(`-H 'Content-Type: application/json'`, `-d ${quoted(body)}`);
  return parts.join(" \\\n  ");
}

function codeBlock(label) {
  const pre = element("pre", { tabIndex: 0 });
  const button = element("button", { type: "button" }, "Copy");
  button.setAttribute("aria-label", `Copy ${label}`);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(pre.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(pre);
      button.textContent = "Press Ctrl+C";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  const block = element("div", { className: "code" }, pre, button);
  return { block, show: (text) => (pre.textContent = text) };
}

function typeOf(schema) {
  if (schema.enum) return schema.enum.filter((value) => value !== null).map((value) => JSON.stringify(value)).join(", ");
  const kinds = [schema.type ?? "any"].flat().filter((kind) => kind !== "null");
  if (schema.type === "array") return `array of ${schema.minItems ?? ""} ${typeOf(schema.items)}`.replace("  ", " ");
  return kinds.join(" or ") + (schema.format ? ` (${schema.format})` : schema.pattern ? " (2026-01-02T03:04:05)" : "");
}

function isNullable(schema) {
  return (schema.enum ?? []).includes(null) || [schema.type].flat().includes("null");
}

function featureTable(schema) {
  if (schema.type !== "object") return element("p", {}, "An instance is ", element("code", {}, typeOf(schema)), ".");
  const rows = Object.entries(schema.properties).map(([name, feature]) =>
    element("tr", {},
      element("td", {}, element("code", { className: "wrap" }, name)),
      element("td", {}, element("code", { className: "wrap" }, typeOf(feature))),
      element("td", {}, [schema.required.includes(name) ? "" : "may be left out", isNullable(feature) ? "may be null" : ""]
        .filter(Boolean).join(", "))));
  const head = element("tr", {}, ...["Feature", "Values", "Missing"].map((text) => element("th", { scope: "col" }, text)));
  return element("div", { className: "scroll", tabIndex: 0 },
    element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)));
}

function resolve(api, schema) {
  return schema.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema;
}

async function send(path, body, show) {
  const started = performance.now();
  try {
    const answer = await fetch(new URL(path, base), {
      method: "POST", body, headers: { "Content-Type": "application/json", ...headers() }, credentials: "omit",
    });
    const text = await answer.text();
    const milliseconds = Math.round(performance.now() - started);
    let shown = text;
    try {
      shown = JSON.stringify(JSON.parse(text), null, 2);
    } catch { /* shown as it is */ }
    show(answer.ok, `${answer.status} ${answer.statusText}`.trim() + `, ${milliseconds} ms`, shown);
  } catch (error) {
    show(false, "No answer", String(error.message ?? error));
  }
}

function requestForm(target, path, operation, api) {
  const content = operation.requestBody.content["application/json"];
  const request = resolve(api, content.schema);
  const parameters = resolve(api, request.properties.parameters);
  const methods = (parameters.properties.method.enum ?? []).filter((name) => name !== null);
  const example = content.examples?.one?.value ?? { instances: [] };
  const id = `body-${target}`;
  const text = element("textarea", { id, spellcheck: false, value: JSON.stringify(example, null, 2) });
  const method = element("select", { id: `method-${target}` }, ...methods.map((name) => element("option", {}, name)));
  const command = codeBlock(`the curl command of ${target}`);
  const status = element("span", { role: "status" });
  const result = element("pre", { className: "answer", hidden: true, tabIndex: 0 });
  const button = element("button", { type: "submit" }, "Send");

  function currentBody() {
    let body = JSON.parse(text.value);
    if (method.selectedIndex > 0) body = { ...body, parameters: { ...body.parameters, method: method.value } };
    return JSON.stringify(body);
  }
  function refresh() {
    try {
      command.show(curl(path, { body: currentBody() }));
      status.textContent = "";
    } catch (error) {
      status.className = "bad";
      status.textContent = `This is no JSON yet: ${error.message}`;
    }
  }
  const form = element("form", {},
    element("label", { htmlFor: id }, "Body"), text,
    element("div", { className: "row" },
      element("label", { htmlFor: method.id }, "Method"), method, button, status),
    result);
  form.addEventListener("input", refresh);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    let body;
    try {
      body = currentBody();
    } catch {
      refresh();
      text.focus();
      return;
    }
    button.disabled = true;
    await send(path, body, (isGood, line, shown) => {
      status.className = isGood ? "good" : "bad";
      status.textContent = line;
      result.textContent = shown;
      result.hidden = false;
    });
    button.disabled = false;
  });
  refresh();
  return [command.block, element("h3", {}, "Try it"), form];
}

function modelDetails(target, path, operation, api, isFirst) {
  const request = resolve(api, operation.requestBody.content["application/json"].schema);
  const instance = resolve(api, request.properties.instances.items);
  const body = element("div", {});
  const details = element("details", { id: `model-${target}` },
    element("summary", {}, element("strong", {}, target),
      element("span", { className: "quiet" }, operation["x-headrace-version"] ? `version ${operation["x-headrace-version"]}` : "")),
    body);
  details.dataset.name = target.toLowerCase();
  details.addEventListener("toggle", () => {
    if (!details.open || body.hasChildNodes()) return;
    body.append(...requestForm(target, path, operation, api),
      element("h3", {}, "An instance"), featureTable(instance));
  });
  details.open = isFirst;
  return details;
}

function showModels(api) {
  const predicts = Object.entries(api.paths).filter(([path]) => /^\/v1\/models\/[^{}\/]+:predict$/.test(path));
  const list = predicts.map(([path, item], number) =>
    modelDetails(path.slice("/v1/models/".length, -":predict".length), path.slice(1), item.post, api, number === 0));
  byId("model-list").replaceChildren(...list);
  byId("filter-line").hidden = list.length < 8;
  byId("message").textContent = list.length ? "" :
    "No model is published yet. Start a worker, or publish a model with `headrace models publish`.";
  return predicts;
}

function showJobs(api, predicts) {
  const place = byId("job-examples");
  const [path, item] = Object.entries(api.paths).find(([name]) => /^\/v1\/models\/[^{}\/]+\/jobs$/.test(name)) ?? [];
  if (!path || !predicts.length) return place.replaceChildren();
  const example = item.post.requestBody.content["application/json"].examples?.one?.value ?? { instances: [] };
  const steps = [
    ["Submit a job, and go on. The same Idempotency-Key and body, sent again, is the same job:",
      curl(path.slice(1), { body: JSON.stringify(example), more: ["Idempotency-Key: order-4711"] })],
    ["Wait up to 20 seconds for its outcome, with the id of the answer:",
      curl("v1/jobs/ID", { more: ["Prefer: wait=20"] })],
    ["Cancel it:", curl("v1/jobs/ID", { method: "DELETE" })],
  ];
  place.replaceChildren(...steps.flatMap(([text, command], number) => {
    const code = codeBlock(`command ${number + 1} for jobs`);
    code.show(command);
    return [element("p", {}, text), code.block];
  }));
}

function showEndpoints(api) {
  const rows = Object.entries(api.paths).flatMap(([path, item]) =>
    Object.entries(item).filter(([, operation]) => operation.operationId).map(([method, operation]) =>
      element("tr", {},
        element("td", {}, element("code", { className: "wrap" }, `${method.toUpperCase()} ${path}`)),
        element("td", {}, operation.summary))));
  const head = element("tr", {}, ...["Request", "What it does"].map((text) => element("th", { scope: "col" }, text)));
  byId("endpoint-list").replaceChildren(element("div", { className: "scroll", tabIndex: 0 },
    element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows))));
}

async function load() {
  const answer = await fetch(new URL("openapi.json", base), { headers: headers(), credentials: "omit" });
  if (answer.status === 401) {
    isOpen = false;
    byId("key-form").hidden = false;
    byId("message").textContent = key ? "The gateway does not know this key." : "Enter your API key to see the models.";
    byId("message").className = key ? "bad" : "";
    return;
  }
  const api = await answer.json();
  if (!answer.ok) throw new Error(api.detail ?? `status ${answer.status}`);
  isOpen = !api.security?.length;
  byId("key-form").hidden = isOpen;
  byId("message").className = "";
  showJobs(api, showModels(api));
  showEndpoints(api);
}

function start() {
  load().catch((error) => {
    byId("message").className = "bad";
    byId("message").textContent = `The models cannot be shown: ${error.message}`;
  });
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = byId("key").value.trim();
  start();
});
byId("filter").addEventListener("input", (event) => {
  const word = event.target.value.trim().toLowerCase();
  for (const details of byId("model-list").children) details.hidden = !details.dataset.name.includes(word);
});
start();
