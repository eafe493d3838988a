// Prices a plan again while the sliders move; nothing is charged by looking. What the labels, the
// table and the offer say belongs together: until an answer is here nothing is offered, and where
// none comes the controls go back to what was priced.
const WAIT_MS = 180;
const TIMEOUT_MS = 10000;
const SNAP = 0.05;
const form = document.querySelector("[data-pricing]");
const control = (name) => form.elements.namedItem(name);
const epsilon = control("epsilon");
const power = document.getElementById("powers");
const deltas = power.dataset.deltas.split(" ");
const own = { epsilon: form.dataset.ownEpsilon, delta: form.dataset.ownDelta, window: form.dataset.ownWindow };
const failed = form.querySelector("[data-failed]");
const table = document.querySelector("[data-precision]");
const users = (count) => count.toLocaleString("en");
let timer = 0;
let asked = 0;
let priced = terms();

form.addEventListener("input", (event) => {
  if (event.target.name === "month") return;
  if (event.target === epsilon) epsilon.value = snapped(Number(epsilon.value));
  if (event.target === power) control("delta").value = deltas[Number(power.value)];
  label();
  offer(false);
  clearTimeout(timer);
  asked += 1;
  timer = setTimeout(price, WAIT_MS);
});
control("month").addEventListener("change", () => {
  if (form.reportValidity()) form.requestSubmit();
});

function terms() {
  return { epsilon: epsilon.value, delta: control("delta").value, window: control("window").value };
}

// Tenths are easy to hit; the terms of the deployment are exact.
function snapped(value) {
  return Math.abs(value - Number(own.epsilon)) < SNAP ? own.epsilon : String(Math.round(value * 10) / 10);
}

function label() {
  const now = terms();
  for (const name of ["epsilon", "delta"]) form.querySelector(`[data-shown="${name}"]`).textContent = now[name];
  power.setAttribute("aria-valuetext", now.delta);
}

async function price() {
  if (!table) {
    form.submit();
    return;
  }
  const mine = asked;
  const wanted = terms();
  const query = new URLSearchParams({ month: control("month").value, ...wanted });
  let facts = null;
  try {
    const options = { credentials: "same-origin", signal: AbortSignal.timeout(TIMEOUT_MS) };
    const answer = await fetch(`/pages/plans.json?${query}`, options);
    if (mine !== asked) return;
    if (!answer.ok) {
      // The page itself says why, or asks for the key again.
      form.submit();
      return;
    }
    facts = await answer.json();
  } catch {
    if (mine === asked) giveUp();
    return;
  }
  if (mine !== asked) return;
  if (!facts.quote || facts.plan) {
    form.submit();
    return;
  }
  priced = wanted;
  failed.hidden = true;
  history.replaceState(null, "", `?${query}`);
  for (const link of document.querySelectorAll("[data-export]")) link.search = `?${query}`;
  fillPrecision(facts.quote.lines);
  fillChart(facts);
  offer(true);
}

function giveUp() {
  epsilon.value = priced.epsilon;
  control("delta").value = priced.delta;
  control("window").value = priced.window;
  power.value = String(deltas.indexOf(priced.delta));
  label();
  failed.textContent = `The service did not answer. What is shown is the price before, at ε ${priced.epsilon} and δ ${priced.delta}; move a slider to try again.`;
  failed.hidden = false;
  offer(true);
}

function fillPrecision(lines) {
  const rows = table.querySelectorAll("tbody tr");
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

// The price of the deployment can be paid only while it is the one that is shown.
function offer(isPriced) {
  if (!table) return;
  const now = terms();
  const isOwn = ["epsilon", "delta", "window"].every((name) => now[name] === own[name]);
  table.setAttribute("aria-busy", String(!isPriced));
  document.querySelector("[data-buy]").hidden = !isPriced;
  document.querySelector("[data-own]").hidden = !isOwn;
  document.querySelector("[data-other]").hidden = isOwn;
  document.querySelector("[data-settings]").textContent = [
    `PLAN_EPSILON=${now.epsilon}`,
    `PLAN_DELTA=${now.delta}`,
    `MAU_WINDOW_DAYS=${now.window}`,
  ].join("\n");
}
