// Every market and feed, what waits between the stations, what is troubled, and the last ends of connections.

/** What a state means, as app/connection/feed.py has it. */
const STATES = {
  live: "data comes in its own rhythm",
  quiet: "silent for several of its usual intervals: worth a look, not an alarm",
  stale: "silent for longer than its timeout and its rhythm explain",
  halted: "the venue no longer lists it as open for trading",
  rejected: "the venue refused this feed",
  subscribing: "no data yet on this connection",
  down: "no stream worker has it",
};
const STATIONS = {
  venue: ["Venue", "WebSocket"], stream: ["Stream", "memory queue"], redis: ["Redis", "lists"],
  segment: ["Segment", "SQLite"], object: ["Object", "Parquet"], store: ["Store", "proved"],
};
const SUMS = [
  ["received", "events received"], ["stored", "stored"], ["duplicates", "duplicates"], ["quarantined", "quarantined"],
  ["lost", "declared lost"], ["replayed", "replayed"],
];

export async function show(root, params, { stream, el, put, say, table, format, health }) {
  const { age, number, rate, time, NONE } = format;
  const strip = el("section", { class: "panel strip", "aria-label": "From venue to store" });
  const sums = el("section", { class: "figures", "aria-label": "Since counting began", title: "Sums of all processes; each reports every few seconds" });
  const troubles = el("section", { class: "panel troubles", hidden: true });
  const tally = el("span", { class: "right" });
  const grid = el("div", { class: "markets" });
  const ends = el("section", { class: "panel ends" });
  put(root, strip, troubles,
    el("section", { class: "panel" }, el("header", {}, el("h2", {}, "Markets"), legend(el), tally), grid),
    sums, ends);

  const arrows = new Map(), tiles = new Map(), figures = new Map();

  function drawStrip(told) {
    if (arrows.size === 0) {
      const parts = [];
      for (const arrow of told.arrows) {
        if (parts.length === 0) parts.push(station(el, arrow.from));
        const nodes = { rate: el("b", {}), backlog: el("span", {}), age: el("span", { class: "soft" }) };
        arrows.set(arrow.to, nodes);
        parts.push(el("div", { class: "arrow", dataset: { to: arrow.to } }, nodes.rate, el("i", { class: "line" }), nodes.backlog, nodes.age));
        parts.push(station(el, arrow.to));
      }
      put(strip, parts);
    }
    for (const arrow of told.arrows) {
      const nodes = arrows.get(arrow.to);
      say(nodes.rate, rate(arrow.rate_per_s, arrow.rate_unit));
      say(nodes.backlog, arrow.backlog === null ? NONE : `${number(arrow.backlog)} ${arrow.backlog === 1 ? arrow.backlog_unit.replace(/s\b/, "") : arrow.backlog_unit}`);
      nodes.backlog.toggleAttribute("data-none", !arrow.backlog);
      say(nodes.age, arrow.age_s === null ? " " : `${age(arrow.age_s)} ${arrow.age_of.startsWith("since") ? "since data" : "oldest"}`);
      nodes.age.title = arrow.age_of;
    }
  }

  function tile(market, feed) {
    const nodes = {
      mark: el("i", { class: "mark" }), state: el("span", { class: "state" }), age: el("b", { class: "n" }),
      rate: el("span", { class: "n" }), gaps: el("span", { class: "gaps" }), bar: el("i", {}), why: el("p", { class: "why" }),
    };
    nodes.tile = el("div", { class: "tile", role: "listitem" },
      el("div", { class: "line1" }, nodes.mark, el("span", { class: "feed" }, feed.feed), nodes.state, nodes.age),
      el("div", { class: "rhythm" }, nodes.bar),
      el("div", { class: "line2" }, nodes.rate, nodes.gaps), nodes.why);
    return nodes;
  }

  function drawMarkets(told) {
    const names = told.markets.map((m) => `${m.exchange}/${m.symbol}:${m.feeds.map((f) => f.feed)}`).join();
    if (grid.dataset.names !== names) {
      grid.dataset.names = names;
      tiles.clear();
      put(grid, told.markets.map((m) => el("a", {
        class: "market", href: `/market/${encodeURIComponent(m.exchange)}/${encodeURIComponent(m.symbol)}`,
      }, el("div", { class: "name" }, el("b", {}, m.symbol), el("span", { class: "soft" }, m.exchange)),
      m.feeds.map((f) => {
        const nodes = tile(m, f);
        tiles.set(`${m.exchange}/${m.symbol}/${f.feed}`, nodes);
        return nodes.tile;
      }))));
    }
    const count = {};
    for (const m of told.markets) {
      for (const f of m.feeds) {
        count[f.state] = (count[f.state] ?? 0) + 1;
        const nodes = tiles.get(`${m.exchange}/${m.symbol}/${f.feed}`);
        nodes.tile.dataset.state = nodes.mark.dataset.state = f.state;
        nodes.tile.title = `${f.feed} of ${m.symbol} on ${m.exchange}: ${f.state}, ${STATES[f.state] ?? ""}`
          + (f.since_us ? `; since ${time(f.since_us, { date: true, zone: true })}` : "") + `\nstream ${f.stream}, connection ${f.connection}`;
        say(nodes.state, f.state);
        say(nodes.age, age(f.age_s));
        say(nodes.rate, f.interval_s ? `${rate(f.rate_per_s)} · every ${period(f.interval_s)}` : "no rhythm yet");
        // Full where its silence is called quiet: 5 of its own intervals, 2 s at least.
        const part = f.age_s === null ? 0 : Math.min(1, f.age_s / Math.max(2, 5 * (f.interval_s ?? 0)));
        nodes.bar.style.transform = `scaleX(${part.toFixed(3)})`;
        say(nodes.gaps, f.gaps_open === null ? "gaps –" : f.gaps_open === 1 ? "1 gap" : `${number(f.gaps_open)} gaps`);
        nodes.gaps.toggleAttribute("data-some", f.gaps_open > 0);
        nodes.gaps.title = f.gaps_open === null ? "the data directory is on another host" : "open gaps of the last hour";
        say(nodes.why, f.state === "live" || f.state === "quiet" ? "" : f.why);
      }
    }
    say(tally, Object.keys(STATES).filter((s) => count[s]).map((s) => `${count[s]} ${s}`).join(" · "));
  }

  function drawSums(told) {
    if (figures.size === 0) {
      put(sums, SUMS.map(([name, words]) => {
        const figure = el("div", { class: "figure" }, el("b", {}, NONE), el("span", {}, words));
        figures.set(name, figure);
        return figure;
      }));
    }
    for (const [name] of SUMS) {
      const figure = figures.get(name), value = told.sums[name];
      say(figure.firstChild, number(value));
      figure.dataset.mood = value > 0 && name === "lost" ? "bad" : value > 0 && name === "quarantined" ? "warn" : "";
    }
  }

  function drawTroubles(told) {
    troubles.hidden = told.troubles.length === 0;
    put(troubles, el("header", {}, el("h2", {}, "Needs a look")), table(
      [["", ""], ["Station", ""], ["Since", "t"], ["What", "words"]],
      told.troubles.map((t) => [
        el("span", { class: "stateful" }, el("i", { class: "mark", dataset: { state: t.level } }), t.level), t.station,
        time(t.since_us, { date: true, zone: true }), t.detail])));
  }

  function drawEnds(told) {
    put(ends, el("header", {}, el("h2", {}, "Last ends of connections"), el("span", { class: "right" }, format.zoneLabel())), table(
      [["When", "t"], ["Stream", ""], ["Reason", ""], ["In words", "words"]],
      told.disconnects.map((d) => [time(d.ended_us, { date: true }), d.stream, d.reason, d.words || NONE]),
      "No connection has ended since the streams began."));
  }

  return stream("/api/stream", {
    overview(told) {
      health(told.health);
      drawStrip(told);
      drawTroubles(told);
      drawMarkets(told);
      drawSums(told);
      drawEnds(told);
      root.dataset.nowUs = told.now_us;
    },
  });

  /** An interval: `80 ms`, `1.2 s`. */
  function period(seconds) { return seconds < 1 ? format.milliseconds(seconds * 1000) : age(seconds); }
}

function station(el, name) {
  const [title, what] = STATIONS[name];
  return el("div", { class: "station" }, el("b", {}, title), el("span", {}, what));
}

function legend(el) {
  return el("span", { class: "legend" }, ["live", "quiet", "stale", "down"].map((state) =>
    el("span", { class: "stateful", title: STATES[state] }, el("i", { class: "mark", dataset: { state } }), state)));
}
