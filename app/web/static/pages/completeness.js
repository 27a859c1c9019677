// Every feed by every UTC hour: what is proved to be complete, and what is not. A cell opens what is known of it.

import { heatmap, LETTERS, MARKS, STATES, stateOf, WORDS } from "../lib/heatmap.js";
import { onChange, poll } from "../lib/poll.js";
import { opened } from "./completeness_cell.js";

const EVERY_MS = 10_000, AGAIN_MS = 500;
const RANGES = [[24, "24 h"], [48, "48 h"], [168, "7 d"], [720, "30 d"]];
/** A table of more hours would be no help to anybody. */
const TABLE_HOURS = 48;

export async function show(root, params, tools) {
  const { api, el, put, say, format } = tools;
  let hours = RANGES.map(([n]) => n).find((n) => String(n) === new URLSearchParams(location.search).get("hours")) ?? 48;
  let told = null, chosen = null, asTable = false, stopped = false, stopPolling = () => {};

  const figures = el("div", { class: "figures", id: "completeness-sums" });
  const unread = el("span", { class: "soft", role: "status" });
  const ranges = el("span", { class: "choices", role: "group", "aria-label": "Time shown" });
  const tableButton = el("button", { type: "button", "aria-pressed": "false", title: "The same as a table, for keyboard and screen reader" }, "Table");
  const body = el("div", { class: "heat" });
  const cell = el("div", { id: "completeness-cell" });
  put(root, figures,
    el("section", { class: "panel" },
      el("header", {}, el("h1", {}, "Completeness"), unread, el("span", { class: "right choices" }, ranges, tableButton)),
      legend(el), body),
    cell);

  const drawn = heatmap(body, tools, choose);

  function drawRanges() {
    put(ranges, RANGES.map(([n, words]) => el("button", {
      type: "button", "aria-pressed": String(n === hours), on: { click: () => { hours = n; drawRanges(); restart(); } },
    }, words)));
  }

  tableButton.addEventListener("click", () => {
    asTable = !asTable;
    tableButton.setAttribute("aria-pressed", String(asTable));
    draw();
  });

  const drawFigures = onChange((sums) => put(figures, STATES.map((state) => el("div", { class: "figure", dataset: { state, mood: state === "gap" && sums[state] ? "bad" : "" } },
    el("b", {}, format.number(sums[state])), el("span", {}, mark(el, state), ` hours ${WORDS[state]}`)))));

  function draw() {
    if (!told) return;
    drawFigures(sums(told));
    say(unread, told.unread_objects ? `${format.number(told.unread_objects)} manifests are still being read` : `every feed of every hour, as known at ${format.time(told.now_us, { zone: true })}`);
    if (asTable) drawTable(body, told, tools, choose); else drawn.draw(told, chosen);
  }

  async function choose(feed, hour_us) {
    chosen = feed && { feed: `${feed.exchange}/${feed.symbol}/${feed.data_type}`, hour_us };
    const query = chosen ? `?hours=${hours}&cell=${encodeURIComponent(`${chosen.feed}/${hour_us}`)}` : "";
    history.replaceState(null, "", `/completeness${query}`);
    if (!asTable && told) drawn.draw(told, chosen);
    if (!chosen) return put(cell);
    const path = [feed.exchange, feed.symbol, feed.data_type].map(encodeURIComponent).join("/");
    const mine = chosen;
    let document;
    try {
      document = await api(`/api/completeness/${path}/${hour_us}`);
    } catch (fault) {
      return put(cell, el("section", { class: "panel" }, el("p", { class: "fault" }, fault.message)));
    }
    if (stopped || mine !== chosen) return;
    put(cell, opened(document, tools, () => choose(null)));
    cell.firstElementChild.focus({ preventScroll: true });
    cell.scrollIntoView({ block: "nearest" });
  }

  function restart() {
    stopPolling();
    stopPolling = poll(async () => {
      const document = await api(`/api/completeness?hours=${hours}`);
      if (stopped) return;
      told = document;
      draw();
      if (told.unread_objects) return AGAIN_MS;
    }, EVERY_MS);
  }

  drawRanges();
  restart();
  const asked = new URLSearchParams(location.search).get("cell")?.split("/");
  if (asked?.length === 4) choose({ exchange: asked[0], symbol: asked[1], data_type: asked[2] }, Number(asked[3]));
  const again = () => told && !asTable && drawn.draw(told, chosen);
  addEventListener("resize", again);
  return () => { stopped = true; stopPolling(); removeEventListener("resize", again); };
}

function mark(el, state) {
  return el("i", { class: "heat-mark", dataset: { state }, "aria-hidden": "true" }, MARKS[state]);
}

function legend(el) {
  const words = {
    proved: "everything the venue numbered is there", repaired: "what was missing was found again",
    gap: "something is missing", unknowable: "nothing proves it, nothing speaks against it",
    not_collected: "nothing was recorded",
  };
  return el("p", { class: "heat-legend" }, STATES.map((state) => el("span", {}, mark(el, state), el("b", {}, WORDS[state]), el("span", { class: "soft" }, words[state]))),
    el("span", {}, el("i", { class: "heat-mark provisional", dataset: { state: "proved" }, "aria-hidden": "true" }), el("b", {}, "pale"), el("span", { class: "soft" }, "so far: not archived yet")));
}

/** State -> hours of feeds. */
function sums(told) {
  const found = Object.fromEntries(STATES.map((state) => [state, 0]));
  for (const feed of told.feeds) for (const cell of feed.cells) found[stateOf(cell)] += 1;
  return found;
}

function drawTable(body, told, { el, put, format }, choose) {
  const first = Math.max(0, told.hours_us.length - TABLE_HOURS);
  const hours = told.hours_us.slice(first);
  put(body, el("div", { class: "scroll heat-table" }, el("table", {},
    el("caption", { class: "soft" }, `The last ${hours.length} hours, UTC. ${STATES.map((s) => `${LETTERS[s]} ${WORDS[s]}`).join(", ")}.`),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Feed"), hours.map((us) => el("th", { scope: "col", class: "n" }, new Date(us / 1000).toISOString().slice(11, 13))))),
    el("tbody", {}, told.feeds.map((feed) => el("tr", {},
      el("th", { scope: "row" }, `${feed.exchange} ${feed.symbol} ${feed.data_type}`),
      feed.cells.slice(first).map((one, n) => el("td", {}, el("button", {
        type: "button", dataset: { state: stateOf(one) }, on: { click: () => choose(feed, hours[n]) },
        "aria-label": `${feed.symbol} ${feed.data_type}, ${format.time(hours[n], { date: true })}: ${WORDS[stateOf(one)]}`,
      }, LETTERS[stateOf(one)])))))))));
}
