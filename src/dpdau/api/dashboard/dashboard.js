// Draws what /series gives. The key stays in this page's memory and goes nowhere else.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 960;
const HEIGHT = 260;
const MARGIN = { left: 70, right: 16, top: 12, bottom: 28 };
const DAY_MS = 86400000;
const PAGES_MAX = 20;
const METRICS = ["dau", "wau", "mau"];
const byId = (id) => document.getElementById(id);

async function get(path, query) {
  const headers = { "X-API-Key": byId("key").value };
  const answer = await fetch(`${path}?${new URLSearchParams(query)}`, { headers, credentials: "omit" });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail);
  return body;
}

async function releasedRange() {
  const days = [];
  let after = null;
  for (let page = 0; page < PAGES_MAX && (page === 0 || after); page += 1) {
    const body = await get("/releases", after ? { limit: 1000, after } : { limit: 1000 });
    days.push(...body.releases.map((one) => one.day));
    after = body.next;
  }
  days.sort();
  return [days[0], days[days.length - 1]];
}

async function load() {
  if (!byId("from").value || !byId("to").value) {
    const [first, last] = await releasedRange();
    if (!first) return [];
    byId("from").value ||= first;
    byId("to").value ||= last;
  }
  const query = {
    metrics: METRICS.join(","),
    from: byId("from").value,
    to: byId("to").value,
    view: byId("view").value,
  };
  const segment = byId("segment").value.trim();
  if (segment) query.segment = segment;
  return (await get("/series", query)).releases;
}

async function show(event) {
  event.preventDefault();
  byId("note").textContent = "Loading…";
  try {
    draw(await load());
  } catch (error) {
    byId("note").textContent = String(error.message);
  }
}

function draw(releases) {
  const count = releases.length;
  byId("note").textContent = count ? `${count} released numbers.` : "Nothing is released there.";
  byId("table").hidden = !count;
  byId("rows").replaceChildren(...releases.map(row));
  const groups = new Map();
  for (const one of releases) {
    const name = `${one.metric}, ${one.window_days} days`;
    groups.set(name, [...(groups.get(name) || []), one]);
  }
  const rank = ([, rows]) => METRICS.indexOf(rows[0].metric) * 100 + rows[0].window_days;
  const ordered = [...groups].sort((one, other) => rank(one) - rank(other));
  byId("charts").replaceChildren(...ordered.flatMap(([name, rows]) => chart(name, rows)));
}

function row(one) {
  const line = document.createElement("tr");
  for (const value of [
    one.metric, one.day, one.window_days, one.estimate.toLocaleString(),
    `${one.lower_95.toLocaleString()} … ${one.upper_95.toLocaleString()}`,
    one.noise_stddev.toFixed(1), one.epsilon_used, one.delta,
  ]) {
    const cell = document.createElement("td");
    cell.textContent = value;
    line.append(cell);
  }
  return line;
}

function chart(name, rows) {
  const days = rows.map((one) => Date.parse(one.day) / DAY_MS);
  const [first, last] = [Math.min(...days), Math.max(...days)];
  const low = Math.min(0, ...rows.map((one) => one.lower_95));
  const high = Math.max(1, ...rows.map((one) => one.upper_95));
  const x = (day) => MARGIN.left
    + (WIDTH - MARGIN.left - MARGIN.right) * (last > first ? (day - first) / (last - first) : 0.5);
  const y = (value) => HEIGHT - MARGIN.bottom
    - (HEIGHT - MARGIN.top - MARGIN.bottom) * (value - low) / (high - low);
  const at = (run, pick) => run.map((index) => `${x(days[index])},${y(pick(rows[index]))}`);
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  svg.setAttribute("aria-label", `${name}: released estimates with 95 % bands`);
  for (const value of [low, (low + high) / 2, high]) {
    const at_y = y(value);
    svg.append(
      shape("line", { class: "axis", x1: MARGIN.left, x2: WIDTH - MARGIN.right, y1: at_y, y2: at_y }),
      label(Math.round(value).toLocaleString(), 4, at_y + 4),
    );
  }
  for (const run of runsOf(days)) {
    const upper = at(run, (one) => one.upper_95);
    const lower = at(run, (one) => one.lower_95).reverse();
    svg.append(
      shape("polygon", { class: "band", points: [...upper, ...lower].join(" ") }),
      shape("polyline", { class: "line", points: at(run, (one) => one.estimate).join(" ") }),
    );
  }
  svg.append(
    ...rows.map((one, index) => shape("circle", {
      class: "dot", cx: x(days[index]), cy: y(one.estimate), r: 3,
    })),
    label(rows[0].day, MARGIN.left, HEIGHT - 8),
    label(rows[rows.length - 1].day, WIDTH - MARGIN.right - 80, HEIGHT - 8),
  );
  const title = document.createElement("h2");
  title.textContent = name;
  return [title, svg];
}

// Days that follow each other; nothing is drawn across days that were not released.
function runsOf(days) {
  const runs = [];
  days.forEach((day, index) => {
    if (index && day === days[index - 1] + 1) runs[runs.length - 1].push(index);
    else runs.push([index]);
  });
  return runs;
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function label(text, x, y) {
  const made = shape("text", { class: "mark", x, y });
  made.textContent = text;
  return made;
}

byId("ask").addEventListener("submit", show);
