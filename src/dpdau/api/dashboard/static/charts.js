// Draws each figure from the table that stands in it. The table stays, and the numbers are its own.
const DAY_SECONDS = 86400;
const PADDING = 0.08;
const POWERS = Array.from({ length: 10 }, (_, power) => 10 ** power);
const WHOLE = POWERS.flatMap((ten) => [ten, 2 * ten, 5 * ten]);
// Lines of equal height stay apart: each is seen through the gaps of the one above it.
const DASHES = { wau: [16, 8], mau: [7, 17], live: [3, 9], forecast: [2, 3], view: [6, 4] };
const colors = () => getComputedStyle(document.documentElement);
const isDark = matchMedia("(prefers-color-scheme: dark)");
const charts = new Set();

class Chart {
  constructor(figure) {
    this.figure = figure;
    this.plot = figure.querySelector("[data-plot]");
    this.readout = figure.querySelector("[data-readout]");
    this.spoken = figure.querySelector("[data-spoken]");
    this.byMoment = figure.dataset.chart === "moments";
    this.place = null;
    this.draw();
    this.plot.addEventListener("keydown", (event) => this.step(event));
    this.plot.addEventListener("blur", () => this.rest());
    figure.addEventListener("dpdau-data", () => this.draw());
    new ResizeObserver(() => this.fit()).observe(this.plot);
  }

  // Rows of the table: x in seconds, and for each series a value with its two ends.
  read() {
    const rows = [...this.figure.querySelectorAll("tr[data-x]")];
    const series = new Map();
    rows.forEach((row, place) => {
      for (const cell of row.querySelectorAll("[data-s]")) {
        const name = cell.dataset.s;
        if (!series.has(name)) {
          series.set(name, { value: nulls(rows), low: nulls(rows), high: nulls(rows), banded: false });
        }
        const one = series.get(name);
        one.value[place] = Number(cell.dataset.v);
        if (cell.dataset.lo !== undefined) {
          one.low[place] = Number(cell.dataset.lo);
          one.high[place] = Number(cell.dataset.hi);
          one.banded = true;
        }
      }
    });
    this.labels = rows.map((row) => row.querySelector("th").textContent.trim());
    this.x = rows.map((row) => Date.parse(row.dataset.x) / 1000);
    this.series = series;
  }

  draw() {
    this.read();
    if (this.chart) this.chart.destroy();
    this.plot.replaceChildren();
    if (!this.series.size) {
      this.chart = null;
      this.readout.textContent = "Nothing is released here.";
      return;
    }
    const style = colors();
    const ink = (name) => style.getPropertyValue(name).trim();
    const { data, options, bands } = this.lines(ink);
    this.chart = new uPlot({
      ...this.size(),
      series: [{}, ...options],
      bands,
      scales: { x: { time: true, range: (_, low, high) => this.range(low, high) }, y: { range: (_, low, high) => this.span(low, high) } },
      axes: this.axes(ink),
      legend: { show: false },
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      cursor: {
        drag: { x: false, y: false },
        y: false,
        points: { size: 7 },
        sync: this.figure.dataset.sync ? { key: this.figure.dataset.sync, setSeries: false } : undefined,
      },
      hooks: {
        drawClear: [(chart) => this.hatch(chart, ink)],
        setCursor: [(chart) => this.tell(chart.cursor.idx)],
      },
    }, data, this.plot);
    this.tell(null);
  }

  lines(ink) {
    const data = [this.x];
    const options = [];
    const bands = [];
    const isView = this.figure.dataset.view && this.figure.dataset.view !== "raw";
    for (const [name, one] of this.series) {
      const isForecast = name.endsWith("_forecast");
      const color = ink(`--s-${name.replace("_forecast", "")}`) || ink("--muted");
      if (one.banded) {
        data.push(one.high, one.low);
        bands.push({ series: [options.length + 1, options.length + 2], fill: `${color}38` });
        options.push(edge(color), edge(color));
      }
      const isStep = "step" in this.figure.dataset && !isForecast;
      const dash = DASHES[isForecast ? "forecast" : isStep ? name : isView && "view"];
      data.push(one.value);
      options.push({
        stroke: color,
        width: isStep && name === "plan" ? 5 : 2,
        dash,
        spanGaps: isForecast,
        paths: isStep ? uPlot.paths.stepped({ align: 1 }) : undefined,
        points: { show: !isStep && this.x.length <= 45, size: 5, fill: isView ? ink("--surface") : color, width: 1.5 },
      });
    }
    return { data, options, bands };
  }

  axes(ink) {
    const shared = {
      stroke: ink("--muted"),
      font: `12px ${getComputedStyle(document.body).fontFamily}`,
      ticks: { show: false },
    };
    const format = (value) => `${value.toLocaleString("en")}${this.figure.dataset.unit === " %" ? " %" : ""}`;
    return [
      { ...shared, grid: { show: false }, space: 64, size: 30, gap: 6, values: (chart, ticks) => ticks.map((tick, place) => axisLabel(tick, ticks, place)) },
      { ...shared, grid: { stroke: ink("--grid"), width: 1 }, size: 58, gap: 8, incrs: WHOLE, values: (chart, ticks) => ticks.map(format) },
    ];
  }

  range(low, high) {
    const until = Date.parse(this.figure.dataset.waitingTo || "") / 1000;
    const end = Number.isNaN(until) ? high : Math.max(high, until + DAY_SECONDS / 2);
    const room = this.byMoment ? 0 : DAY_SECONDS / 2;
    return low === end ? [low - DAY_SECONDS, end + DAY_SECONDS] : [low - room, end + room];
  }

  span(low, high) {
    const { min, max } = this.figure.dataset;
    const room = Math.max((high - low) * PADDING, 0.5);
    const bottom = min !== undefined ? Number(min) : low - room;
    return [low >= 0 && bottom < 0 ? 0 : bottom, max !== undefined ? Number(max) * 1.02 : high + room];
  }

  // Days whose numbers are not final: hatched.
  hatch(chart, ink) {
    const { waitingFrom, waitingTo } = this.figure.dataset;
    if (!waitingFrom) return;
    const { ctx, bbox } = chart;
    const left = Math.max(chart.valToPos(Date.parse(waitingFrom) / 1000 - DAY_SECONDS / 2, "x", true), bbox.left);
    const right = Math.min(chart.valToPos(Date.parse(waitingTo) / 1000 + DAY_SECONDS / 2, "x", true), bbox.left + bbox.width);
    if (right <= left) return;
    ctx.save();
    ctx.beginPath();
    ctx.rect(left, bbox.top, right - left, bbox.height);
    ctx.clip();
    ctx.fillStyle = ink("--wait");
    ctx.fillRect(left, bbox.top, right - left, bbox.height);
    ctx.strokeStyle = ink("--wait");
    ctx.lineWidth = devicePixelRatio;
    const gap = 8 * devicePixelRatio;
    for (let at = left - bbox.height; at < right; at += gap) {
      ctx.moveTo(at, bbox.top + bbox.height);
      ctx.lineTo(at + bbox.height, bbox.top);
    }
    ctx.stroke();
    ctx.restore();
  }

  // What the cursor is on, in words; the newest number where it is on nothing.
  tell(place) {
    const at = place ?? this.newest();
    this.readout.textContent = at === null ? "" : this.words(at);
  }

  newest() {
    for (let at = this.x.length - 1; at >= 0; at -= 1) {
      if ([...this.series].some(([name, one]) => !name.endsWith("_forecast") && one.value[at] !== null)) return at;
    }
    return null;
  }

  words(at) {
    const { unit = "", prefix = "" } = this.figure.dataset;
    const parts = [];
    for (const [name, one] of this.series) {
      const now = this.series.get(name.replace("_forecast", ""));
      if (one.value[at] === null || (now !== one && now && now.value[at] !== null)) continue;
      const isAlone = this.series.size === 1;
      const label = isAlone ? "" : `${spoken(name)} `;
      const ends = one.low[at] === null ? "" : ` (${number(one.low[at])} to ${number(one.high[at])})`;
      parts.push(`${label}${prefix}${number(one.value[at])}${unit}${ends}`);
    }
    return `${this.labels[at]}: ${parts.join(", ") || "not released"}`;
  }

  step(event) {
    const last = this.x.length - 1;
    const from = this.place ?? this.newest();
    const to = { ArrowLeft: from - 1, ArrowRight: from + 1, Home: 0, End: last, PageUp: from - 7, PageDown: from + 7 }[event.key];
    if (!this.chart || to === undefined) return;
    event.preventDefault();
    this.place = Math.min(Math.max(this.place === null && event.key.startsWith("Arrow") ? from : to, 0), last);
    this.chart.setCursor({ left: this.chart.valToPos(this.x[this.place], "x"), top: 10 });
    this.tell(this.place);
    this.spoken.textContent = this.words(this.place);
  }

  rest() {
    this.place = null;
    if (this.chart) this.chart.setCursor({ left: -10, top: -10 });
  }

  size() {
    return { width: this.plot.clientWidth || 300, height: this.plot.clientHeight || 220 };
  }

  fit() {
    const { width, height } = this.size();
    if (this.chart && (this.chart.width !== width || this.chart.height !== height)) this.chart.setSize({ width, height });
  }
}

const spoken = (name) => {
  const own = name.replace("_forecast", "");
  const text = ["plan", "live"].includes(own) ? own : own.toUpperCase();
  return own === name ? text : `${text} forecast`;
};
const nulls = (rows) => new Array(rows.length).fill(null);
const edge = (color) => ({ stroke: `${color}55`, width: 1, points: { show: false } });
const number = (value) => value.toLocaleString("en").replace("-", "−");

function axisLabel(tick, ticks, place) {
  const at = new Date(tick * 1000);
  const shown = (options) => at.toLocaleString("en-GB", { timeZone: "UTC", ...options });
  const gap = ticks.length > 1 ? ticks[1] - ticks[0] : DAY_SECONDS;
  if (gap < DAY_SECONDS) return shown({ hour: "2-digit", minute: "2-digit" });
  const month = gap >= 27 * DAY_SECONDS;
  const before = place ? new Date(ticks[place - 1] * 1000) : null;
  const isNewYear = !before || before.getUTCFullYear() !== at.getUTCFullYear();
  const year = isNewYear ? ` ${at.getUTCFullYear()}` : "";
  return (month ? shown({ month: "short" }) : shown({ day: "numeric", month: "short" })) + (month || !place ? year : "");
}

function start() {
  for (const figure of document.querySelectorAll("[data-chart]")) charts.add(new Chart(figure));
  document.documentElement.dataset.drawn = String(charts.size);
}

isDark.addEventListener("change", () => charts.forEach((chart) => chart.draw()));
start();
