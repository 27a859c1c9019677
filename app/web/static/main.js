// The shell: which page a path is, what all pages share, and the keys. A page exports `show(root, params, tools)`, which
// fills `root` and returns a function that stops it.

import { el, put, say, table } from "./lib/dom.js";
import * as format from "./lib/format.js";
import { api, forget, onStale, stream } from "./lib/net.js";
import { finder } from "./lib/finder.js";

const PAGES = [
  [/^\/$/, "overview", "Overview"],
  [/^\/market\/(?<exchange>[^/]+)\/(?<symbol>[^/]+)$/, "market", "Market"],
  [/^\/completeness$/, "completeness", "Completeness"],
  [/^\/archive$/, "archive", "Archive"],
  [/^\/losses$/, "losses", "Losses"],
];

const root = document.getElementById("page");
const notice = document.getElementById("notice");
const tools = { api, stream, el, put, say, table, format, go, health };
let stop = null, turn = 0;

/** Keep a choice of the viewer's; without a place to keep it, it lasts until the page is closed. */
const kept = {
  get(key) { try { return localStorage.getItem(key); } catch { return null; } },
  set(key, value) { try { localStorage.setItem(key, value); } catch { /* private window */ } },
};

/** Show the page of the address. */
async function route() {
  const mine = ++turn;
  stop?.();
  stop = null;
  forget();
  const path = location.pathname;
  const found = PAGES.map(([pattern, name, title]) => [path.match(pattern), name, title]).find(([match]) => match);
  for (const link of document.querySelectorAll("nav a")) {
    link.toggleAttribute("aria-current", link.pathname === path);
  }
  if (!found) return fail("There is no page here.");
  const [match, name, title] = found;
  const params = Object.fromEntries(Object.entries(match.groups ?? {}).map(([k, v]) => [k, decodeURIComponent(v)]));
  document.title = params.symbol ? `${params.symbol} · ${params.exchange} · Collector` : `${title} · Collector`;
  document.body.dataset.page = name;
  put(root);
  try {
    const page = await import(`./pages/${name}.js`);
    if (mine !== turn) return;
    const ended = await page.show(root, params, tools);
    if (mine === turn) stop = ended ?? null; else ended?.();
  } catch (fault) {
    if (mine === turn) fail(fault.message);
  }
}

function fail(words) {
  put(root, el("section", { class: "panel empty" }, el("h1", {}, "Nothing to show"), el("p", { class: "fault" }, words),
    el("p", {}, el("a", { href: "/" }, "To the overview"))));
}

/** Go to another page without loading the shell again. */
function go(path) {
  if (path !== location.pathname + location.search) history.pushState(null, "", path);
  window.scrollTo(0, 0);
  route();
}

/** What /health says, in the corner of every page. */
function health({ status, degraded_reason: reason, connections }) {
  const pill = document.getElementById("health");
  pill.dataset.status = status;
  const up = connections ? ` ${connections.up}/${connections.total}` : "";
  say(pill, `${status}${up}`);
  pill.title = reason ? `${status}: ${reason}` : `${status}: every connection is up`;
}

onStale((reasons) => {
  document.body.toggleAttribute("data-stale", reasons.length > 0);
  notice.hidden = reasons.length === 0;
  say(notice, reasons.length ? `${reasons.join("; ")}. What you see is old.` : "");
});

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href^='/']");
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
  if (!PAGES.some(([pattern]) => pattern.test(link.pathname))) return;
  event.preventDefault();
  go(link.pathname + link.search);
});
addEventListener("popstate", route);

function showTheme(name) {
  if (name) document.documentElement.dataset.theme = name; else delete document.documentElement.dataset.theme;
}
document.getElementById("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).getPropertyValue("--dark").trim() === "1";
  kept.set("theme", dark ? "light" : "dark");
  showTheme(dark ? "light" : "dark");
  route();
});
showTheme(kept.get("theme"));

const zone = document.getElementById("zone");
function showZone(name) {
  format.useZone(name);
  say(zone, format.zoneLabel());
}
zone.addEventListener("click", () => {
  const next = format.zoneName() === "UTC" ? "local" : "UTC";
  kept.set("zone", next);
  showZone(next);
  route();
});
showZone(kept.get("zone"));

finder(tools);
route();
setInterval(() => {
  if (document.body.dataset.page !== "overview") fetch("/health", { cache: "no-store" }).then((a) => a.json()).then(health).catch(() => {});
}, 5000);
