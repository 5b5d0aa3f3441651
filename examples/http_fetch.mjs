// Predictions and jobs with fetch: Node 18 and later, Deno, Bun. It needs no package.
//
//     node examples/http_fetch.mjs
//
// HEADRACE_API is the gateway's address, HEADRACE_API_KEY your key if it asks for one. Keep the key on a server: a page
// in a browser would show it to everybody.
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

const API = process.env.HEADRACE_API ?? "http://127.0.0.1:8080";
const KEY = process.env.HEADRACE_API_KEY ?? "none";

// Send a request that may be repeated, and repeat it if there was no answer, or 429 or 503.
async function send(method, path, { body, headers = {} } = {}) {
  for (let attempt = 1; ; attempt++) {
    let seconds = 0.1 * 2 ** attempt;
    try {
      const answer = await fetch(API + path, {
        method,
        headers: { Authorization: `Bearer ${KEY}`, "Content-Type": "application/json", ...headers },
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: AbortSignal.timeout(60_000),
      });
      if (![429, 503].includes(answer.status) || attempt === 6) return answer;
      seconds = Number(answer.headers.get("Retry-After") ?? seconds);
    } catch (error) {
      if (attempt === 6) throw error;
    }
    await sleep(1000 * seconds);
  }
}

// Return a prediction for each instance. The Idempotency-Key makes a repeat safe: one key is one job.
async function predict(model, instances) {
  const answer = await send("POST", `/v1/models/${model}:predict`, {
    body: { instances },
    headers: { "Idempotency-Key": randomUUID() },
  });
  const document = await answer.json();
  if (answer.status === 202) return waitFor(document.id);
  if (!answer.ok) throw new Error(document.detail);
  return document.predictions;
}

// Submit a job under an id of our own, and return the id under which the gateway knows it.
async function submit(order, model, instances) {
  const answer = await send("PUT", `/v1/jobs/${order}`, { body: { model, instances } });
  const document = await answer.json();
  if (!answer.ok) throw new Error(document.detail);
  return document.id;
}

// Return the predictions of a job. Each request waits up to 20 seconds, so this asks seldom.
async function waitFor(job) {
  for (;;) {
    const answer = await send("GET", `/v1/jobs/${job}`, { headers: { Prefer: "wait=20" } });
    const document = await answer.json();
    if (!answer.ok) throw new Error(document.detail);
    if (document.status === "success") return document.predictions;
    if (!["queued", "running"].includes(document.status)) {
      throw new Error(`job ${job}: ${document.status}: ${document.message ?? ""}`);
    }
  }
}

console.log("predicted:", JSON.stringify(await predict("churn", [{ age: 41, plan: "gold" }])));

const order = `order-${randomUUID()}`;
const customers = [{ age: 41, plan: "gold" }, { age: 23, plan: "basic" }];
const job = await submit(order, "churn", customers);
console.log("job:", JSON.stringify(await waitFor(job)));
console.log("repeated:", (await submit(order, "churn", customers)) === job); // the same request is the same job

try {
  await predict("churn", [{ age: "41", plan: "gold" }]);
} catch (error) {
  console.log("refused:", error.message);
}
