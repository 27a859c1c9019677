// What was received and given up, what is in quarantine, and how connections ended, in the venue's words.

import { onChange, poll } from "../lib/poll.js";

const EVERY_MS = 5000;
const RANGES = [[24, "24 h"], [168, "7 d"], [720, "30 d"], [8784, "1 year"]];
const CAUSES = {
  queue_full: "the memory queue was full: Redis and the spool were too slow",
  not_encodable: "it could not be written as it came",
  buffer_lost: "it was pushed, and never came out of Redis or the spool",
  unclean_end: "the process died with it in its hands, if there was anything",
  segment_damaged: "the segment's file was damaged",
};

export async function show(root, params, tools) {
  const { api, el, put, table, format } = tools;
  const { bytes, number, time } = format;
  let hours = 168, stopped = false, stopPolling = () => {};
  const figures = el("div", { class: "figures", id: "losses-sums" });
  const ranges = el("span", { class: "right choices", role: "group", "aria-label": "Time shown" });
  const causes = el("div", { id: "losses-causes" }), newest = el("div"), quarantine = el("section", { class: "panel", id: "quarantine" });
  const now = el("section", { class: "panel", id: "connections" }), ended = el("section", { class: "panel", id: "ended" });
  put(root, figures,
    el("section", { class: "panel" }, el("header", {}, el("h1", {}, "Losses"), el("span", { class: "soft" }, "received, numbered and given up: declared, never silent"), ranges), causes),
    newest, quarantine, el("div", { class: "columns" }, now, ended));

  const market = (row) => (row.symbol === "?" ? `${row.exchange} (not decoded)` : el("a", { href: `/market/${encodeURIComponent(row.exchange)}/${encodeURIComponent(row.symbol)}` }, `${row.exchange} ${row.symbol}`));
  const feed = (row) => (row.feed === "?" ? "–" : row.feed);
  const events = (count) => (count === null ? el("span", { title: "Nobody can know" }, "unknown") : number(count));
  const figure = (value, words, mood = "") => el("div", { class: "figure", dataset: { mood } }, el("b", {}, value), el("span", {}, words));

  const drawFigures = onChange((t) => {
    const lost = t.losses.by_cause.reduce((n, c) => n + c.events, 0), unknown = t.losses.by_cause.reduce((n, c) => n + c.of_unknown_extent, 0);
    const down = t.connections?.filter((c) => c.connection !== "open").length;
    put(figures,
      figure(number(lost), "events lost", lost ? "bad" : ""), figure(number(t.losses.total), "losses declared", t.losses.total ? "warn" : ""),
      figure(number(unknown), "of them of unknown extent", unknown ? "warn" : ""), figure(number(t.quarantine.total), "frames in quarantine", t.quarantine.total ? "warn" : ""),
      figure(t.connections ? number(t.connections.reduce((n, c) => n + (c.refused ?? 0), 0)) : "–", "events refused by full memory queues"),
      figure(down === undefined ? "–" : number(down), "connections not open", down ? "bad" : ""));
  });

  const drawCauses = onChange((list) => put(causes, table(
    [["Cause", ""], ["Market", ""], ["Feed", ""], ["Events", "n"], ["Losses", "n"], ["Of unknown extent", "n"], ["Last one", "t"], ["What that means", "words"]],
    list.map((c) => [el("b", {}, c.cause), market(c), feed(c), number(c.events), number(c.losses), number(c.of_unknown_extent), time(c.last_us, { date: true }), el("span", { class: "soft" }, CAUSES[c.cause] ?? "")]),
    "Nothing was lost in this time")));

  const drawNewest = onChange(({ total, newest: rows }) => put(newest, rows.length ? el("section", { class: "panel" },
    el("header", {}, el("h2", {}, "One by one"), el("span", { class: "right" }, total > rows.length ? `the newest ${rows.length} of ${number(total)}` : number(total))),
    el("div", { class: "tall" }, table([["Until", "t"], ["From", "t"], ["Market", ""], ["Feed", ""], ["Events", "n"], ["Cause", ""], ["Numbers", "t"], ["Epoch", "t"]],
      rows.map((l) => [time(l.end_us, { date: true, ms: true }), time(l.start_us, { date: true, ms: true }), market(l), feed(l), events(l.count), l.cause, l.count === null ? `from ${l.first}` : `${l.first} – ${l.last}`, l.epoch.slice(0, 8)])))) : null));

  const drawQuarantine = onChange(({ total, by_feed, newest: rows }) => put(quarantine,
    el("header", {}, el("h2", {}, "Quarantine"), el("span", { class: "soft" }, "kept as it came, not stored as an event"),
      el("span", { class: "right" }, by_feed.map((f) => `${f.exchange} ${f.symbol === "?" ? "(not decoded)" : `${f.symbol} ${f.feed}`} ${number(f.count)}`).join(", ") || "empty")),
    el("div", { class: "tall" }, table([["Received", "t"], ["Market", ""], ["Feed", ""], ["Why", "words"], ["Size", "n"], ["The frame begins with (first 200 bytes)", "words"]],
      rows.map((q) => [time(q.received_us, { date: true, ms: true }), market(q), feed(q), q.reason, bytes(q.size_bytes), el("code", { class: "frame" }, q.head)]),
      "Nothing is in quarantine")), total > rows.length ? el("p", { class: "soft" }, `The newest ${rows.length} of ${number(total)}.`) : null));

  const drawNow = onChange((list) => put(now,
    el("header", {}, el("h2", {}, "Connections now"), el("span", { class: "right" }, "what each said in its last words")),
    list === null ? el("p", { class: "fault" }, "Redis does not answer: what streams say of themselves is not known.")
      : table([["Stream", ""], ["State", ""], ["Since", "t"], ["Opened", "n"], ["Ends by reason", ""], ["Last words", "words"]],
        list.map((c) => [c.stream, el("span", { class: "stateful" }, el("i", { class: "mark", dataset: { state: c.connection } }), c.connection), time(c.since_us, { date: true }), number(c.connections_opened),
          Object.entries(c.closes ?? {}).map(([why, n]) => `${why} ${n}`).join(", ") || "–", words(c)]))));

  const words = (c) => [c.why, c.last_error && `the venue said: ${c.last_error}`, ...(c.ends ?? []).slice(-1).map(([at, why, said]) => `ended ${time(at)}: ${said || why}`)].filter(Boolean).join(" · ") || "–";

  const drawEnded = onChange((list, spoken) => put(ended,
    el("header", {}, el("h2", {}, "Ended last"), el("span", { class: "right" }, `${list.length} connections on record`)),
    el("div", { class: "tall" }, table([["Ended", "t"], ["Stream", ""], ["Lasted", "n"], ["Why", ""], ["In the venue's words", "words"]],
      list.map((e) => [time(e.ended_us, { date: true }), e.stream, format.age((e.ended_us - e.opened_us) / 1e6), e.reason, said(spoken, e)]),
      "No connection has ended yet"))));

  /** What the board still knows of the end of a connection that is on record: the two are told at the same moment. */
  const said = (spoken, e) => spoken.find(([stream, at, why]) => stream === e.stream && why === e.reason && Math.abs(at - e.ended_us) < 2e6)?.[3] ?? "";

  function drawRanges() {
    put(ranges, RANGES.map(([n, words]) => el("button", { type: "button", "aria-pressed": String(n === hours), on: { click: () => { hours = n; drawRanges(); restart(); } } }, words)));
  }
  function restart() {
    stopPolling();
    stopPolling = poll(async () => {
      const told = await api(`/api/losses?hours=${hours}`);
      if (stopped) return;
      drawFigures({ losses: told.losses, quarantine: told.quarantine, connections: told.connections });
      drawCauses(told.losses.by_cause);
      drawNewest(told.losses);
      drawQuarantine(told.quarantine);
      drawNow(told.connections);
      drawEnded(told.ended, (told.connections ?? []).flatMap((c) => (c.ends ?? []).map((end) => [c.stream, ...end])));
    }, EVERY_MS);
  }
  drawRanges();
  restart();
  return () => { stopped = true; stopPolling(); };
}
