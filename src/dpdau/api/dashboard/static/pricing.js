// Prices a plan again while the sliders move; nothing is charged by looking.
const WAIT_MS = 180;
const form = document.querySelector("[data-pricing]");
const power = form.querySelector("[data-power]");
const hidden = form.elements.namedItem("delta");
const shown = (name) => form.querySelector(`[data-shown="${name}"]`);
const users = (count) => count.toLocaleString("en");
let timer = 0;
let asked = 0;

power.value = String(Math.round(-Math.log10(Number(hidden.value))));
power.addEventListener("input", () => {
  hidden.value = `1e-${power.value}`;
  shown("delta").textContent = hidden.value;
});
form.elements.namedItem("epsilon").addEventListener("input", (event) => {
  shown("epsilon").textContent = event.target.value;
});
form.addEventListener("input", (event) => {
  if (event.target.name === "month") return;
  clearTimeout(timer);
  timer = setTimeout(price, WAIT_MS);
});

async function price() {
  const query = new URLSearchParams(new FormData(form));
  asked += 1;
  const mine = asked;
  const answer = await fetch(`/pages/plans.json?${query}`, { credentials: "same-origin" });
  if (mine !== asked) return;
  if (!answer.ok) {
    form.submit();
    return;
  }
  const facts = await answer.json();
  if (!facts.quote || facts.plan) {
    form.submit();
    return;
  }
  history.replaceState(null, "", `?${query}`);
  fillPrecision(facts.quote.lines);
  fillChart(facts);
  offer(facts);
}

function fillPrecision(lines) {
  const rows = document.querySelectorAll("[data-precision] tbody tr");
  const segment = lines[lines.length - 1].segment;
  lines.filter((line) => !line.segment || line.segment === segment).forEach((line, place) => {
    const widths = [...line.half_widths_95].sort((one, other) => one - other);
    const [window_, typical, widest, from] = [rows[place].querySelector(".muted"), ...rows[place].querySelectorAll("td")];
    window_.textContent = `${line.window_days} day${line.window_days === 1 ? "" : "s"}`;
    typical.textContent = `± ${users(widths[Math.floor(widths.length / 2)])}`;
    widest.textContent = `± ${users(widths[widths.length - 1])}`;
    from.textContent = `${users(line.smallest_population)} users`;
  });
}

function fillChart(facts) {
  const figure = document.querySelector("[data-precision-chart]");
  figure.querySelectorAll("tr[data-x]").forEach((row, place) => {
    for (const line of facts.quote.lines.filter((one) => !one.segment)) {
      const cell = row.querySelector(`[data-s="${line.metric}"]`);
      cell.dataset.v = String(line.half_widths_95[place]);
      cell.textContent = `± ${users(line.half_widths_95[place])}`;
    }
  });
  figure.dispatchEvent(new Event("dpdau-data"));
}

function offer(facts) {
  document.querySelector("[data-own]").hidden = !facts.is_configured;
  document.querySelector("[data-other]").hidden = facts.is_configured;
  document.querySelector("[data-settings]").textContent = [
    `PLAN_EPSILON=${facts.terms.epsilon}`,
    `PLAN_DELTA=${hidden.value}`,
    `MAU_WINDOW_DAYS=${facts.terms.window}`,
  ].join("\n");
}
