// One market as it happens: depth, ladder, trades by taker side, spread and mid, how late events come, gaps.

import { axis, chart, colour } from "../lib/chart.js";

const BANDS = [["0.5 %", 0.005], ["2 %", 0.02], ["5 %", 0.05], ["all", null]];
const LADDER = 13, TAPE = 29, HISTORY_S = 300;

export async function show(root, { exchange, symbol }, { api, stream, el, put, say, table, format, health }) {
  const { age, milliseconds, number, time, NONE } = format;
  const path = `/api/market/${encodeURIComponent(exchange)}/${encodeURIComponent(symbol)}`;
  const first = await api(path);

  const feeds = el("div", { class: "feeds" });
  const figure = (words, title) => {
    const value = el("b", {}, NONE);
    return [el("div", { class: "figure", title }, value, el("span", {}, words)), value];
  };
  const [midBox, mid] = figure("mid price");
  const [spreadBox, spread] = figure("spread", "best ask minus best bid");
  const [bpsBox, bps] = figure("spread, basis points of mid");
  const [tiltBox, tilt] = figure("bid part of the best 10 levels", "sizes of the 10 best bids, as a part of those and the 10 best asks");
  const [bookLateBox, bookLate] = figure("book latency p50 / p99", "our receive time minus the venue's time, last 60 s; with the offset of both clocks");
  const [tradeLateBox, tradeLate] = figure("trade latency p50 / p99", "our receive time minus the venue's time, last 60 s; with the offset of both clocks");

  const depthPlace = el("div", { class: "plot depth" });
  const bands = el("span", { class: "right bands", role: "group", "aria-label": "Band around mid" });
  const waiting = el("p", { class: "waiting", hidden: true });
  const ladderBody = el("div", { class: "ladder" });
  const bookAge = el("span", { class: "right" });
  const tapeBody = el("div", { class: "tape", tabindex: "0" });
  const tapeNote = el("span", { class: "right" }, "pauses under the pointer");
  const historyPlace = el("div", { class: "plot history" });
  const latency = el("div", {});
  const gaps = el("div", {});
  put(root,
    el("section", { class: "head" }, el("h1", {}, symbol, " ", el("span", { class: "soft" }, exchange)), feeds),
    el("section", { class: "figures" }, midBox, spreadBox, bpsBox, tiltBox, bookLateBox, tradeLateBox),
    el("div", { class: "market-grid" },
      el("div", { class: "stack" },
        el("section", { class: "panel" }, el("header", {}, el("h2", {}, "Depth"), bands), el("div", { class: "over" }, depthPlace, waiting)),
        el("section", { class: "panel" }, el("header", {}, el("h2", {}, "Mid and spread"), el("span", { class: "right" },
          el("i", { class: "key mid" }), "mid ", el("i", { class: "key bps" }), "spread, bp · last 5 min")), historyPlace)),
      el("section", { class: "panel" }, el("header", {}, el("h2", {}, "Book"), bookAge), ladderBody),
      el("section", { class: "panel" }, el("header", {}, el("h2", {}, "Trades"), tapeNote), tapeBody),
    ),
    el("div", { class: "columns" },
      el("section", { class: "panel" }, el("header", {}, el("h2", {}, "Latency"), el("span", { class: "right" }, "venue to us")), latency),
      el("section", { class: "panel" }, el("header", {}, el("h2", {}, "Gaps"), el("span", { class: "right" }, "last hour")), gaps)));

  // depth

  let book = first.book, band = bandOf(book);
  const buttons = BANDS.map(([words, part]) => el("button", {
    type: "button", "aria-pressed": String(part === band), on: { click: () => { band = part; mark(); drawDepth(); } },
  }, words));
  const mark = () => buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(BANDS[i][1] === band)));
  put(bands, buttons);
  const stepped = (align) => window.uPlot.paths.stepped({ align });
  const side = (name, align) => ({
    stroke: colour(name), width: 1.5, fill: colour(name, 0.16), paths: stepped(align), points: { show: false }, spanGaps: false,
  });
  const [depth, endDepth] = chart(depthPlace, {
    scales: { x: { time: false, auto: false, range: () => centred() }, y: { range: (u, low, high) => [0, (high || 1) * 1.08] } },
    axes: [axis({ size: 26, values: (u, at) => at.map((v) => trimmed(v)), space: 80 }), axis({ size: wide, values: (u, at) => at.map(short) })],
    series: [{}, side("--buy", -1), side("--sell", 1)],
    cursor: { y: false, points: { size: 6 } },
    hooks: { draw: [(u) => centreLine(u)] },
  }, [[], [], []]);

  function centred() {
    const m = Number(book.mid);
    if (!book.mid) return [0, 1];
    const far = Math.max(...[book.bids.at(-1), book.asks.at(-1)].filter(Boolean).map(([p]) => Math.abs(Number(p) - m)));
    const half = band === null ? far * 1.02 : Math.min(m * band, far * 1.02);
    return [m - half, m + half];
  }
  function centreLine(u) {
    if (!book.mid) return;
    const x = u.valToPos(Number(book.mid), "x", true);
    u.ctx.save();
    u.ctx.strokeStyle = colour("--faint");
    u.ctx.setLineDash([3, 4]);
    u.ctx.beginPath();
    u.ctx.moveTo(x, u.bbox.top);
    u.ctx.lineTo(x, u.bbox.top + u.bbox.height);
    u.ctx.stroke();
    u.ctx.restore();
  }
  function cumulated(levels) {
    let sum = 0;
    return levels.map(([price, size]) => [Number(price), (sum += Number(size))]);
  }
  function drawDepth() {
    const bids = cumulated(book.bids).reverse(), asks = cumulated(book.asks);
    depth.setData([
      [...bids, ...asks].map(([p]) => p),
      [...bids.map(([, s]) => s), ...asks.map(() => null)],
      [...bids.map(() => null), ...asks.map(([, s]) => s)],
    ]);
    waiting.hidden = book.state === "live";
    say(waiting, book.words);
  }

  // ladder

  const rung = (kind) => {
    const nodes = { price: el("span", { class: "price" }), size: el("span", {}), sum: el("span", { class: "soft" }), bar: el("i", {}) };
    nodes.row = el("div", { class: `rung ${kind}` }, nodes.bar, nodes.price, nodes.size, nodes.sum);
    return nodes;
  };
  const asks = Array.from({ length: LADDER }, () => rung("ask")), bids = Array.from({ length: LADDER }, () => rung("bid"));
  const between = el("div", { class: "between" });
  put(ladderBody, el("div", { class: "rung heading" }, el("span", {}, "price"), el("span", {}, "size"), el("span", {}, "sum")),
    [...asks].reverse().map((n) => n.row), between, bids.map((n) => n.row));

  function drawLadder() {
    const shown = [book.bids.slice(0, LADDER), book.asks.slice(0, LADDER)];
    const digits = [0, 1].map((column) => Math.max(0, ...shown.flat().map((level) => places(level[column]))));
    const sums = shown.map(cumulated);
    const most = Math.max(1e-30, ...sums.map((s) => s.at(-1)?.[1] ?? 0));
    [bids, asks].forEach((nodes, s) => nodes.forEach((n, i) => {
      const level = shown[s][i];
      n.row.toggleAttribute("data-empty", !level);
      say(n.price, level ? fixed(level[0], digits[0]) : " ");
      say(n.size, level ? fixed(level[1], digits[1]) : "");
      say(n.sum, level ? short(sums[s][i][1]) : "");
      n.bar.style.transform = `scaleX(${level ? (sums[s][i][1] / most).toFixed(4) : 0})`;
    }));
    say(between, book.mid ? `mid ${plain(book.mid)} · spread ${plain(book.spread)}` : book.words || NONE);
    say(bookAge, book.at_us ? `${number(book.levels[0])} × ${number(book.levels[1])} levels · ${age(book.age_s)} old` : "");
  }

  // trades

  let shown = 0, over = false;
  for (const [event, value] of [["pointerenter", true], ["pointerleave", false]]) {
    tapeBody.addEventListener(event, () => { over = value; tapeBody.toggleAttribute("data-paused", value); });
  }
  function drawTape(trades) {
    const last = trades.at(-1)?.n ?? 0;
    if (over || (last === shown && last > 0)) return;
    shown = last;
    const newest = trades.slice(-TAPE).reverse();
    const most = Math.max(1e-30, ...trades.map((t) => Number(t.size)));
    const digits = ["price", "size"].map((name) => Math.max(0, ...newest.map((t) => places(t[name]))));
    put(tapeBody, newest.length ? newest.map((t) => el("div", { class: `trade ${t.taker}`, title: `id ${t.id}` },
      el("i", { style: { transform: `scaleX(${Math.sqrt(Number(t.size) / most).toFixed(3)})` } }),
      el("span", { class: "soft" }, time(t.received_us, { ms: true })),
      el("span", { class: "side" }, t.taker === "buy" ? "▲ buy" : "▼ sell"),
      el("span", {}, fixed(t.price, digits[0])), el("span", {}, fixed(t.size, digits[1])))) : el("p", { class: "empty" }, "No trade since this page looks."));
  }

  // mid and spread

  const history = [[], [], []];
  const utc = (ts) => (format.zoneName() === "UTC" ? window.uPlot.tzDate(new Date(ts * 1000), "Etc/UTC") : new Date(ts * 1000));
  const [line, endLine] = chart(historyPlace, {
    tzDate: utc,
    scales: { y: { range: (u, low, high) => padded(low, high) }, bp: { range: (u, low, high) => [0, (high || 1) * 2.6] } },
    axes: [axis({ size: 26, space: 70, values: [[1, "{HH}:{mm}:{ss}", null, null, null, null, null, null, 1], [60, "{HH}:{mm}", null, null, null, null, null, null, 1]] }),
      axis({ size: wide, values: (u, at) => at.map((v) => trimmed(v)) }),
      axis({ scale: "bp", side: 1, size: 48, grid: { show: false }, values: (u, at) => at.map((v) => trimmed(v)) })],
    series: [{}, { stroke: colour("--text"), width: 1.5, points: { show: false } },
      { scale: "bp", stroke: colour("--odd"), width: 1, fill: colour("--odd", 0.12), points: { show: false } }],
    cursor: { points: { size: 6 } },
  }, history);
  function drawHistory(now_us) {
    if (!book.mid) return;
    history[0].push(now_us / 1e6);
    history[1].push(Number(book.mid));
    history[2].push(book.spread_bps);
    while (history[0].length && history[0][0] < now_us / 1e6 - HISTORY_S) history.forEach((column) => column.shift());
    line.setData(history);
  }

  // the rest

  let tick = 0;
  function draw(told) {
    book = told.book;
    health(told.health);
    say(mid, book.mid ? plain(book.mid) : NONE);
    say(spread, book.spread ? plain(book.spread) : NONE);
    say(bps, book.spread_bps === null ? NONE : `${number(book.spread_bps, book.spread_bps < 1 ? 3 : 2)} bp`);
    const ten = [book.bids, book.asks].map((levels) => levels.slice(0, 10).reduce((sum, [, size]) => sum + Number(size), 0));
    say(tilt, ten[0] + ten[1] ? `${number(100 * ten[0] / (ten[0] + ten[1]), 1)} %` : NONE);
    say(bookLate, late(told.latency.orderbook));
    say(tradeLate, late(told.latency.trade));
    drawDepth();
    drawLadder();
    drawTape(told.trades);
    drawHistory(told.now_us);
    if (tick++ % 4) return;
    put(feeds, told.feeds.map((f) => el("span", { class: "chip", title: f.why },
      el("i", { class: "mark", dataset: { state: f.state } }), `${f.feed} ${f.state}`, el("span", { class: "soft" }, age(f.age_s)))));
    put(latency, table([["Feed", ""], ["p50", "n"], ["p99", "n"], ["Events", "n"], ["p50, all", "n"], ["p99, all", "n"]],
      Object.entries(told.latency).map(([feed, l]) => [feed, milliseconds(l.p50_ms), milliseconds(l.p99_ms), number(l.events),
        milliseconds(told.latency_counted[feed]?.p50_ms), milliseconds(told.latency_counted[feed]?.p99_ms)]),
      "No event with a time of the venue yet."), el("p", { class: "note" }, "Left: the last 60 s, exact. All: by the histogram of all processes since they began to count."));
    put(gaps, told.gaps === null ? el("p", { class: "empty" }, "The data directory is on another host.")
      : table([["Seen", "t"], ["Feed", ""], ["Missing ids", "n"], ["Cause", ""], ["State", ""]],
        told.gaps.map((g) => [time(g.after_us), g.feed, g.size === null ? "unknown" : number(g.size), g.cause, el("span", { title: g.detail }, g.state)]),
        "None."));
    root.dataset.nowUs = told.now_us;
  }
  const late = (l) => (l ? `${milliseconds(l.p50_ms)} / ${milliseconds(l.p99_ms)}` : NONE);

  draw(first);
  const end = stream(`${path}/stream`, { market: draw });
  return () => { end(); endDepth(); endLine(); };
}

/** The narrowest band in which both sides show beside the spread. */
function bandOf({ spread_bps: bps }) {
  return (BANDS.find(([, part]) => part !== null && bps !== null && part * 10_000 >= 3 * bps) ?? BANDS.at(-1))[1];
}

/** Digits after the point of a decimal text, without the zeros at its end. */
function places(text) {
  const [, fraction = ""] = text.split(".");
  return fraction.replace(/0+$/, "").length;
}

/** A decimal text with so many digits after the point: none is rounded away that `places` counted. */
function fixed(text, digits) {
  const [whole, fraction = ""] = text.split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return digits ? `${grouped}.${fraction.slice(0, digits).padEnd(digits, "0")}` : grouped;
}

function plain(text) { return fixed(text, places(text)); }

/** A number of an axis. */
function trimmed(value) {
  if (value === null || value === undefined) return "";
  return value.toLocaleString("en-US", { maximumFractionDigits: Math.abs(value) >= 1000 ? 1 : 6 });
}

/** How wide an axis is for its longest number. */
function wide(u, values) { return 16 + 7 * Math.max(4, ...(values ?? []).map((v) => v.length)); }

/** A size: `12.4`, `3.1k`. */
function short(value) {
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)}M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(1)}k`;
  return value.toLocaleString("en-US", { maximumSignificantDigits: 4 });
}

function padded(low, high) {
  if (low === null || low === undefined) return [0, 1];
  const room = (high - low) * 0.12 || Math.abs(high) * 1e-5 || 1;
  return [low - room, high + room];
}
