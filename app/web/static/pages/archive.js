// What is in the store and how that was proved, what it takes and costs, and what comes next.

import { onChange, poll } from "../lib/poll.js";

const EVERY_MS = 5000;
const PROOFS = { store_sha256: "the store computed the same SHA-256", read_back: "read back and hashed" };

export async function show(root, params, tools) {
  const { api, el, put, table, format } = tools;
  const { age, bytes, number, time } = format;
  const figures = el("div", { class: "figures", id: "archive-sums" });
  const troubles = el("div"), state = el("section", { class: "panel" }), feeds = el("section", { class: "panel" });
  const objects = el("section", { class: "panel", id: "archive-objects" }), one = el("div", { id: "archive-object" });
  put(root, figures, troubles, el("div", { class: "columns" }, state, feeds), one, objects);
  let stopped = false, market = "", pages = [""], markets = [];

  const figure = (value, words, { mood, title } = {}) => el("div", { class: "figure", dataset: { mood: mood ?? "" }, title }, el("b", {}, value), el("span", {}, words));
  const money = (value) => (value === null ? "–" : `$${value < 1 ? value.toFixed(4) : number(value, 2)}`);

  const drawFigures = onChange((t) => {
    const g = t.growth, day = g.window_us >= 86_399e6 ? "by the last 24 h" : `by the last ${age(g.window_us / 1e6)}`;
    put(figures,
      figure(number(t.total.objects), "objects proved equal in the store"),
      figure(number(t.total.rows), "rows in them"),
      figure(bytes(t.total.size_bytes), "stored"),
      figure(t.compression?.ratio ? `${t.compression.ratio.toFixed(1)} : 1` : "–", t.compression?.ratio ? `text to stored, of ${bytes(t.compression.text_bytes)}` : "text to stored: nothing written yet", { title: "Of all objects that were written since the counters began" }),
      figure(g.bytes_per_month === null ? "–" : bytes(g.bytes_per_month), `a month, ${day}`),
      figure(money(g.cost_per_month_now), "a month for what is stored", { title: `At $${g.price_per_gb_month} for 10^9 bytes and month ([storage] price_per_gb_month), requests and traffic not reckoned` }),
      figure(money(g.cost_per_month_added), "more each month", { title: "What one more month of recording adds to every monthly bill that follows" }));
  });

  const drawTroubles = onChange((t) => put(troubles,
    t.troubles === null ? el("section", { class: "panel fault" }, "Redis does not answer: whether something keeps the archive from its work is not known.")
      : Object.entries(t.troubles).map(([station, told]) => el("section", { class: "panel trouble", dataset: { level: told.level } },
        el("span", { class: "stateful" }, el("i", { class: "mark", dataset: { state: told.level } }), el("b", {}, station)), ` ${told.level} since ${time(told.since_us, { date: true, zone: true })}: `, told.detail)),
    t.conflicts.total ? el("section", { class: "panel trouble", dataset: { level: "warning" } },
      el("b", {}, `${number(t.conflicts.total)} keys had other bytes under them`), ": nothing was overwritten, our objects have another name. ",
      el("ul", { class: "reasons" }, t.conflicts.newest.map((c) => el("li", {}, el("span", { class: "mono" }, c.key), ` ${c.store}, segment ${c.segment}: ${c.detail}`)))) : null));

  const SEGMENTS = [["open", "being filled"], ["sealing", "being sealed"], ["sealed", "archived next, the newest kept a while"], ["removing", "being removed"], ["removed", "archived, proved and removed"]];
  const drawState = onChange((t, left) => put(state,
    el("header", {}, el("h2", {}, "From segment to object"), el("span", { class: "right" }, `${t.stores.join(" and ")}; a segment is removed when each store has proved that it has all of it`)),
    table([["Segments", ""], ["", ""], ["", "n"]], SEGMENTS.map(([name, words]) => [el("span", { class: "stateful" }, el("i", { class: "heat-mark segment", dataset: { state: name } }), name), el("span", { class: "soft" }, words), number(t.segments[name])])),
    el("dl", { class: "facts" },
      el("dt", {}, "Next seal"), el("dd", { class: "mono" }, t.next.seal_us === null ? "no segment is open" : `${time(t.next.seal_us, { zone: true })}, ${left}; the archive follows it`),
      el("dt", {}, "Waits"), el("dd", { class: "mono" }, t.next.waiting_segments ? `${number(t.next.waiting_segments)} sealed segments, the oldest for ${age((t.now_us - t.next.waiting_since_us) / 1e6)}` : "nothing"),
      el("dt", {}, "Rhythm"), el("dd", { class: "mono" }, `a segment every ${age(t.segment_secs)}, a cycle every ${age(t.archive_interval_secs)} and after each seal`))));

  const drawFeeds = onChange((list, total) => put(feeds,
    el("header", {}, el("h2", {}, "By feed"), el("span", { class: "right" }, `${list.length} feeds`)),
    el("div", { class: "tall" }, table([["Feed", ""], ["Objects", "n"], ["Rows", "n"], ["Stored", "n"], ["A row", "n"], ["Share", "share"]],
      [...list].sort((a, b) => b.size_bytes - a.size_bytes).map((f) => [
        `${f.exchange} ${f.symbol} ${f.data_type}`, `${number(f.objects)}${f.written ? ` +${f.written}` : ""}`, number(f.rows), bytes(f.size_bytes),
        f.rows ? bytes(f.size_bytes / f.rows) : "–",
        el("span", { class: "bar", title: `${(100 * f.size_bytes / (total || 1)).toFixed(1)} %` }, el("i", { style: { width: `${100 * f.size_bytes / (total || 1)}%` } })),
      ]), "No object yet: the first segment is still being filled"))));

  const choice = el("select", { "aria-label": "Market", on: { change: () => { market = choice.value; pages = [""]; page(); } } });
  const older = el("button", { type: "button", on: { click: () => page(1) } }, "Older");
  const newer = el("button", { type: "button", on: { click: () => page(-1) } }, "Newer");
  const list = el("div");
  put(objects, el("header", {}, el("h2", {}, "Objects, the newest first"), el("span", { class: "right choices" }, choice, newer, older)), list);

  const drawMarkets = onChange((names) => {
    put(choice, el("option", { value: "" }, "all markets"), names.map((name) => el("option", { value: name }, name)));
    choice.value = market;
  });

  const drawObjects = onChange((told) => {
    older.disabled = !told.next;
    newer.disabled = pages.length < 2;
    put(list, table([["Object", "words"], ["Segment from", "t"], ["Rows", "n"], ["Stored", "n"], ["Store", ""], ["State", ""], ["SHA-256", "t"]],
      told.rows.map((o) => [
        el("button", { type: "button", class: "link mono", dataset: { key: o.key }, on: { click: () => open(o.key) } }, o.key),
        time(o.opened_us, { date: true }), number(o.rows), bytes(o.size_bytes), o.store,
        el("span", { class: "stateful", title: PROOFS[o.proved_by] ?? "" }, el("i", { class: "mark", dataset: { state: o.state === "verified" ? "proved" : "warning" } }), o.state === "verified" ? `proved: ${PROOFS[o.proved_by] ?? o.proved_by}` : "being uploaded"),
        o.sha256.slice(0, 12),
      ]), market ? "No object of this market" : "No object yet: the first segment is still being filled"));
    older.dataset.next = told.next ?? "";
  });

  async function page(step = 0) {
    if (step > 0) pages.push(older.dataset.next);
    if (step < 0) pages.pop();
    const query = new URLSearchParams({ market, before: pages.at(-1) });
    const told = await api(`/api/archive/objects?${query}`);
    if (!stopped) drawObjects(told);
  }

  async function open(key) {
    history.replaceState(null, "", `/archive?key=${encodeURIComponent(key)}`);
    let told;
    try {
      told = await api(`/api/archive/object?key=${encodeURIComponent(key)}`);
    } catch (fault) {
      return put(one, el("section", { class: "panel" }, el("p", { class: "fault" }, fault.message)));
    }
    if (stopped) return;
    const m = told.manifest;
    const fact = (name, value) => [el("dt", {}, name), el("dd", { class: "mono" }, value)];
    put(one, el("section", { class: "panel", tabindex: -1 },
      el("header", {}, el("h1", {}, "Manifest"), el("span", { class: "mono soft" }, key),
        el("span", { class: "right" }, el("button", { type: "button", on: { click: () => { history.replaceState(null, "", "/archive"); put(one); } } }, "Close"))),
      el("dl", { class: "facts" },
        fact("Rows", `${number(m.rows)}, ${number(m.duplicates)} duplicates beside them`), fact("Stored", `${bytes(m.size_bytes)}, SHA-256 ${m.sha256}`),
        fact("Segment", `${m.segment}, open from ${time(m.opened_us, { date: true })} to ${time(m.sealed_us, { date: true, zone: true })}`),
        fact("Received", `${time(m.first_collector_us, { date: true, ms: true })} – ${time(m.last_collector_us, { ms: true, zone: true })}`),
        fact("Clock", m.clock_offset_us === null ? "the venue sends no time" : `ours is at most ${(m.clock_offset_us / 1000).toFixed(1)} ms ahead of the venue's`),
        fact("Ids", m.ids ? `${m.ids.first} – ${m.ids.last}, ${number(m.ids.holes.length)} holes` : "they do not count one by one"),
        fact("Complete", m.completeness === null ? "unknowable when it was archived" : `${(m.completeness * 100).toFixed(4)} % when it was archived`),
        fact("Records", `${m.gaps.length} gaps, ${m.repairs.length} repairs, ${m.losses.length} losses, ${m.checks.length} checks, ${m.epochs.length} connections, ${m.quarantined} in quarantine`),
        fact("Written by", `Collector ${m.collector_version}, pyarrow ${m.pyarrow_version}`)),
      m.completeness_reasons.length ? el("ul", { class: "reasons" }, m.completeness_reasons.map((why) => el("li", {}, why))) : null,
      el("details", {}, el("summary", {}, "The whole manifest, as it stands in the store"), el("pre", { class: "mono" }, JSON.stringify(m, null, 2)))));
    one.firstElementChild.focus({ preventScroll: true });
    one.scrollIntoView({ block: "nearest" });
  }

  const asked = new URLSearchParams(location.search).get("key");
  if (asked) open(asked);
  const stop = poll(async () => {
    const told = await api("/api/archive");
    if (stopped) return;
    const { objects: first, ...rest } = told;
    drawFigures({ ...rest, now_us: 0 });
    drawTroubles({ troubles: told.troubles, conflicts: told.conflicts });
    const left = told.next.seal_us === null ? "" : told.next.seal_us > told.now_us ? `in ${age((told.next.seal_us - told.now_us) / 1e6)}` : "due";
    drawState(told, left);
    drawFeeds(told.feeds, told.total.size_bytes);
    markets = [...new Set(told.feeds.map((f) => `${f.exchange}/${f.symbol}`))];
    drawMarkets(markets);
    if (!market && pages.length === 1) drawObjects(first);
  }, EVERY_MS);
  return () => { stopped = true; stop(); };
}
