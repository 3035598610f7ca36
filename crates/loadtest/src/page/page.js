"use strict";
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 600, HEIGHT = 180, LEFT = 52, BOTTOM = 20, TOP = 8, RIGHT = 8;
let isFilled = false;

const made = (name, text, parent) => {
  const node = document.createElement(name);
  node.textContent = text;
  parent.append(node);
  return node;
};

const number = (value) => value.toLocaleString("en-US", { maximumFractionDigits: value < 10 ? 2 : 0 });

// The form is filled once, so that what the user enters stays.
const fill = (view) => {
  isFilled = true;
  byId("users").value = view.defaults.users;
  byId("rate").value = view.defaults.spawn_rate;
  byId("length").value = view.defaults.seconds ?? "";
  for (const name of view.classes) {
    const label = made("label", "", byId("classes"));
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = true;
    box.value = name;
    label.append(box, name);
  }
};

const chart = (id, points, lines) => {
  const svg = byId(id);
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.replaceChildren();
  const all = points.flatMap((point) => lines.map((line) => point[line[0]]));
  const top = Math.max(1e-9, ...all), end = Math.max(1, ...points.map((point) => point.second));
  const x = (second) => LEFT + (second / end) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - BOTTOM - TOP);
  const text = (left, down, what, anchor) => {
    const node = document.createElementNS(SVG, "text");
    node.setAttribute("x", left);
    node.setAttribute("y", down);
    node.setAttribute("text-anchor", anchor);
    node.textContent = what;
    svg.append(node);
  };
  text(LEFT - 6, HEIGHT - BOTTOM, "0", "end");
  text(LEFT - 6, TOP + 8, points.length ? number(top) : "", "end");
  text(WIDTH - RIGHT, HEIGHT - 5, `${number(end)} s`, "end");
  for (const [field, name] of lines) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", name);
    const steps = points.map((point, place) => `${place ? "L" : "M"}${x(point.second).toFixed(1)} ${y(point[field]).toFixed(1)}`);
    path.setAttribute("d", steps.join(""));
    svg.append(path);
  }
};

const show = (view) => {
  if (!isFilled) fill(view);
  byId("target").textContent = view.target;
  byId("scenario").textContent = view.scenario;
  byId("state").textContent = view.state;
  byId("seconds").textContent = number(view.seconds);
  byId("message").textContent = view.message;
  byId("start").disabled = view.state !== "ready";
  byId("stop").disabled = view.state !== "starting" && view.state !== "running";
  const figures = byId("figures");
  figures.replaceChildren();
  const each = [
    ["Users", view.users], ["Workers", view.workers], ["Requests/s", view.rate], ["Requests", view.total.requests],
    ["Failures", view.total.failures], ["Refused", view.refused],
    ["p50 ms", view.total.p50], ["p95 ms", view.total.p95], ["p99 ms", view.total.p99],
  ];
  for (const [name, value] of each) {
    const box = made("div", "", figures);
    made("dt", name, box);
    made("dd", number(value), box);
  }
  chart("chart-rate", view.points, [["rate", "p50"]]);
  chart("chart-latency", view.points, [["p50", "p50"], ["p95", "p95"], ["p99", "p99"]]);
  chart("chart-users", view.points, [["users", "p50"], ["workers", "p95"]]);
  chart("chart-failures", view.points, [["failures", "p99"]]);
  const rows = byId("rows");
  rows.replaceChildren();
  for (const row of view.rows) {
    const line = made("tr", "", rows);
    for (const cell of [row.event, row.name, ...[row.requests, row.failures, row.p50, row.p95, row.p99].map(number)]) {
      made("td", cell, line);
    }
  }
  const errors = byId("errors");
  errors.replaceChildren();
  for (const [error, count] of view.errors) made("li", `${number(count)} × ${error}`, errors);
};

const ask = async (path, what) => {
  try {
    const answer = await fetch(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(what),
    });
    if (!answer.ok) byId("message").textContent = (await answer.json()).error;
  } catch (error) {
    byId("message").textContent = "The master does not answer.";
  }
};

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const boxes = [...byId("classes").querySelectorAll("input")];
  const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
  if (!chosen.length) {
    byId("message").textContent = "Choose at least one class.";
    return;
  }
  const length = byId("length").value;
  ask("/start", {
    users: Number(byId("users").value),
    spawn_rate: Number(byId("rate").value),
    seconds: length === "" ? null : Number(length),
    classes: chosen,
  });
});
byId("stop").addEventListener("click", () => ask("/stop", {}));

const update = async () => {
  try {
    const answer = await fetch("/stats");
    show(await answer.json());
  } catch (error) {
    byId("state").textContent = "the master does not answer";
    byId("start").disabled = byId("stop").disabled = true;
  }
  setTimeout(update, 1000);
};
update();
