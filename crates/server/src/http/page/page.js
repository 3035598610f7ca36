"use strict";

// Names come from clients of the limiter: everything is written as text, nothing as markup.

const EVERY_MS = 5000;
const MINUTE_MS = 60000;
// Minutes that the charts show: the first while the server is young.
const SHORT = 3;
const LONG = 15;
const PATIENCE_MS = 8000;
const TOKEN = "zae-limiter-token";

const ADMITTED = ["admitted", "degraded"];
const REFUSED = ["refused", "never", "concurrency", "disabled"];
const FAILED = ["unavailable", "failed", "invalid"];

const find = (id) => document.getElementById(id);

function element(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// ---- requests

// What the session keeps is not available in some browsers' private windows.
let token = null;
try { token = sessionStorage.getItem(TOKEN); } catch { /* kept in memory only */ }

async function ask(path) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const response = await fetch(path, { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  const text = await response.text();
  let body = null;
  try { body = JSON.parse(text); } catch { /* not every answer is JSON */ }
  return { status: response.status, ok: response.ok, body, text };
}

// ---- numbers

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

function short(value) {
  if (value >= 100) return grouped.format(value);
  if (value >= 10 || value === 0) return value.toFixed(value === 0 ? 0 : 1);
  return value.toFixed(2);
}

const millis = (micros) => short(micros / 1000);

function duration(ms) {
  const seconds = Math.ceil(ms / 1000);
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

const sum = (counts, names) => names.reduce((total, name) => total + (counts[name] || 0), 0);

function added(steps, field) {
  const totals = {};
  for (const step of steps) {
    for (const [name, count] of Object.entries(step[field])) totals[name] = (totals[name] || 0) + count;
  }
  return totals;
}

// ---- tables

// Columns: [title, value of a row, whether it is text].
function table(into, columns, rows, none) {
  const place = find(into);
  if (rows.length === 0) {
    place.replaceChildren(element("p", { class: "empty" }, none));
    return;
  }
  const of = (isText) => (isText ? { class: "text" } : {});
  const head = element("tr", {}, ...columns.map(([title, , isText]) => element("th", of(isText), title)));
  const body = rows.map((row) =>
    element("tr", {}, ...columns.map(([, value, isText]) => element("td", of(isText), value(row)))));
  place.replaceChildren(element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
}

function entityButton(row) {
  const button = element("button", { class: "name", type: "button", title: "What it has left" }, row.entity_id);
  button.addEventListener("click", () => {
    find("entity").value = row.entity_id;
    find("resource").value = row.resource;
    look();
    find("look-form").scrollIntoView({ block: "center" });
  });
  return button;
}

// A table that is drawn again would take the focus from a reader with a keyboard.
function keepingFocus(draw) {
  const focused = document.activeElement;
  const place = focused && focused.classList.contains("name") && focused.closest("[id]");
  const name = focused && focused.textContent;
  draw();
  if (!place) return;
  const again = [...place.querySelectorAll("button.name")].find((button) => button.textContent === name);
  if (again) again.focus({ preventScroll: true });
}

// ---- charts

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 560;
const HEIGHT = 190;
const ROOM = { left: 44, right: 8, top: 8, bottom: 22 };

function drawn(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// The next of 1, 2, 5, 10, ...
function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((bound) => bound >= value);
}

// Lines: [class, label, value of a step or null].
function chart(into, keys, lines, steps, span) {
  const svg = find(into);
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  const values = lines.map(([, , value]) => steps.map(value));
  const top = roundUp(Math.max(0, ...values.flat().filter((value) => value !== null)));
  const end = steps.length ? steps[steps.length - 1].at_ms : 0;
  const x = (step) => WIDTH - ROOM.right - ((end - step.at_ms) / (span * MINUTE_MS)) * (WIDTH - ROOM.left - ROOM.right);
  const y = (value) => HEIGHT - ROOM.bottom - (value / top) * (HEIGHT - ROOM.top - ROOM.bottom);
  const nodes = [];
  for (const part of [0, 0.5, 1]) {
    nodes.push(drawn("line", { x1: ROOM.left, x2: WIDTH - ROOM.right, y1: y(part * top), y2: y(part * top) }));
    nodes.push(drawn("text", { x: ROOM.left - 6, y: y(part * top) + 4, "text-anchor": "end" }, short(part * top)));
  }
  for (const third of [3, 2, 1, 0]) {
    const minutes = (span * third) / 3;
    const at = x({ at_ms: end - minutes * MINUTE_MS });
    const anchor = third === 0 ? "end" : third === 3 ? "start" : "middle";
    nodes.push(drawn("text", { x: at, y: HEIGHT - 5, "text-anchor": anchor }, minutes === 0 ? "now" : `−${minutes} min`));
  }
  lines.forEach(([style], line) => {
    let points = [];
    const flush = () => {
      if (points.length === 1) points.push(points[0]);
      if (points.length) nodes.push(drawn("polyline", { class: style, points: points.join(" ") }));
      points = [];
    };
    steps.forEach((step, index) => {
      const value = values[line][index];
      if (value === null) flush();
      else points.push(`${x(step).toFixed(1)},${y(value).toFixed(1)}`);
    });
    flush();
  });
  svg.replaceChildren(...nodes);
  find(keys).replaceChildren(...lines.map(([style, label]) => element("span", { class: style }, label)));
}

// ---- the page

function show(activity) {
  const { steps, step_ms: stepMs } = activity;
  const rate = (count) => (count * 1000) / stepMs;
  find("about").textContent =
    `${activity.stack} · ${activity.namespace} · version ${activity.version} · up ${duration(activity.uptime_ms)}`;

  const minute = steps.slice(-MINUTE_MS / stepMs);
  const outcomes = added(minute, "outcomes");
  const [admitted, refused, failed] = [ADMITTED, REFUSED, FAILED].map((names) => sum(outcomes, names));
  const all = admitted + refused + failed;
  find("rate").textContent = minute.length ? short(rate(all) / minute.length) : "–";
  find("refused").textContent = all ? `${short((100 * refused) / all)} %` : "–";
  find("failed").textContent = all ? grouped.format(failed) : "–";
  const latest = minute.filter((step) => step.table).map((step) => step.table.p99_us);
  find("p99").textContent = latest.length ? `${millis(Math.max(...latest))} ms` : "–";

  const span = steps.length * stepMs > SHORT * MINUTE_MS ? LONG : SHORT;
  chart("calls", "calls-keys", [
    ["admitted", "admitted", (step) => rate(sum(step.outcomes, ADMITTED))],
    ["refused", "refused", (step) => rate(sum(step.outcomes, REFUSED))],
    ["failed", "failed", (step) => rate(sum(step.outcomes, FAILED))],
  ], steps, span);
  const inMillis = (field) => (step) => (step.table ? step.table[field] / 1000 : null);
  chart("latency", "table-keys", [
    ["admitted", "median", inMillis("p50_us")],
    ["refused", "99th percentile", inMillis("p99_us")],
  ], steps, span);

  const { busiest } = activity;
  find("window").textContent = `last ${duration(busiest.window_ms)}`;
  const ofEntity = [
    ["Entity", entityButton, true],
    ["Resource", (row) => row.resource, true],
    ["Requests", (row) => grouped.format(row.requests)],
    ["Refused", (row) => grouped.format(row.refusals)],
  ];
  keepingFocus(() => {
    table("most-requests", ofEntity, busiest.most_requests, "No request has been decided.");
    table("most-refusals", ofEntity, busiest.most_refusals, "No request was refused.");
  });

  const [lately, before] = [added(minute, "refusals"), added(steps, "refusals")];
  const limits = Object.keys(before).sort((a, b) => (lately[b] || 0) - (lately[a] || 0) || before[b] - before[a]);
  table("refusals", [
    ["Limit", (limit) => limit, true],
    ["Last minute", (limit) => grouped.format(lately[limit] || 0)],
    ["15 minutes", (limit) => grouped.format(before[limit])],
  ], limits, "No limit has refused a call.");

  const kinds = [...new Set(minute.flatMap((step) => Object.keys(step.operations)))].sort();
  const over = (kind) => minute.flatMap((step) => (step.operations[kind] ? [step.operations[kind]] : []));
  const total = (field) => (kind) => grouped.format(over(kind).reduce((count, each) => count + each[field], 0));
  const most = (field) => (kind) => millis(Math.max(...over(kind).map((each) => each[field])));
  table("operations", [
    ["Operation", (kind) => kind, true],
    ["Requests", total("count")],
    ["Failed", total("failed")],
    ["Median, ms", most("p50_us")],
    ["99th, ms", most("p99_us")],
    ["Longest, ms", most("max_us")],
  ], kinds, "The table was not asked.");
}

function state(text, style) {
  find("state").textContent = text;
  find("state").className = style;
}

async function refresh() {
  let activity;
  try {
    activity = await ask("v1/activity");
  } catch {
    state("the server does not answer", "bad");
    return;
  }
  if (activity.status === 401) {
    find("token-form").hidden = false;
    find("main").hidden = true;
    const message = activity.body && activity.body.message;
    state(message || "a token is needed", "bad");
    return;
  }
  if (!activity.ok || !activity.body) {
    state(`the server answers ${activity.status}`, "bad");
    return;
  }
  find("token-form").hidden = true;
  find("main").hidden = false;
  show(activity.body);
  try {
    const ready = await ask("readyz");
    if (ready.ok) state("ready", "good");
    else state(ready.text.trim().slice(0, 100) || `not ready: ${ready.status}`, "bad");
  } catch {
    state("the server does not answer", "bad");
  }
}

// ---- what an entity has left

function meter(status) {
  const node = element("meter", { min: 0, max: 1, low: 0.1, optimum: 1 });
  node.value = status.capacity > 0 ? Math.max(0, status.available) / status.capacity : 0;
  return node;
}

function refill(status) {
  if (status.kind !== "quota") {
    return `${grouped.format(status.refill_amount)} in ${duration(status.refill_period_seconds * 1000)}`;
  }
  return status.resets_at_ms ? `resets ${new Date(status.resets_at_ms).toLocaleString()}` : "";
}

let looks = 0;

async function look() {
  const place = find("left");
  const [entity, resource] = [find("entity").value.trim(), find("resource").value.trim()];
  if (!entity || !resource) return;
  const query = new URLSearchParams({ entity_id: entity, resource });
  looks += 1;
  const own = looks;
  let found;
  try {
    found = await ask(`v1/availability?${query}`);
  } catch {
    found = { ok: false, body: null, status: 0 };
  }
  // Another one was asked for meanwhile.
  if (own !== looks) return;
  if (!found.ok || !found.body) {
    const message = (found.body && found.body.message) || "The server does not answer.";
    place.replaceChildren(element("p", { class: "error" }, message));
    return;
  }
  const { limits, bypassed, disabled_by: disabled } = found.body;
  table("left", [
    ["Entity", (status) => status.entity_id, true],
    ["Limit", (status) => status.limit_name, true],
    ["", meter, true],
    ["Left", (status) => grouped.format(status.available)],
    ["Capacity", (status) => grouped.format(status.capacity)],
    ["Refill", refill],
  ], limits, "No limits hold.");
  const notes = [];
  if (disabled) notes.push(`Disabled: ${disabled.entity_id || "the resource"} (${disabled.level}).`);
  if (bypassed) notes.push("A bypass holds: limits are not enforced.");
  place.prepend(...notes.map((note) => element("p", { class: "error" }, note)));
}

find("look-form").addEventListener("submit", (event) => {
  event.preventDefault();
  look();
});

find("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const typed = find("token").value.trim();
  find("token").value = "";
  // Others cannot be in a header field.
  if (!/^[\x21-\x7e]+$/.test(typed)) {
    state("a token has visible ASCII characters only", "bad");
    return;
  }
  token = typed;
  try { sessionStorage.setItem(TOKEN, token); } catch { /* kept in memory only */ }
  refresh();
});

// One request after the other, however slow they are, and none while the page is not seen.
async function run() {
  for (;;) {
    if (!document.hidden) await refresh();
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh();
});
run();
