// Shows today's live count as it is released. The browser comes back by itself when it is cut off.
const card = document.querySelector("[data-live]");
const part = (name) => card.querySelector(`[data-live-${name}]`);
const users = (count) => count.toLocaleString("en").replace("-", "−");

const stream = new EventSource(card.dataset.live);
stream.addEventListener("tick", (event) => {
  const tick = JSON.parse(event.data);
  const at = new Date(tick.released_at).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", timeZone: "UTC" });
  part("estimate").textContent = users(tick.estimate);
  part("interval").textContent = `95 %: ${users(tick.lower_95)} to ${users(tick.upper_95)}`;
  part("note").textContent = `A live count of ${tick.day}, as of ${at} UTC: provisional, until the day has closed.`;
});
stream.addEventListener("error", () => {
  if (stream.readyState === EventSource.CLOSED) part("note").textContent = "The live counter cannot be reached; load the page again.";
});
