// A canvas of feeds by hours: colour and shape say the state. Arrows move, Enter or a click opens.

export const STATES = ["proved", "repaired", "gap", "unknowable", "not_collected"];
export const WORDS = { proved: "proved", repaired: "repaired", gap: "with a gap", unknowable: "unknowable", not_collected: "not collected" };
export const LETTERS = { proved: "P", repaired: "R", gap: "G", unknowable: "U", not_collected: "·" };
export const MARKS = { proved: "", repaired: "●", gap: "✕", unknowable: "", not_collected: "" };
export const COLOURS = { proved: "--good", repaired: "--warn", gap: "--bad", unknowable: "--idle", not_collected: "--line-strong" };

const ROW = 20, TOP = 34, GAP = 2, LEAST = 7, MOST = 30;

export const stateOf = (cell) => cell?.state ?? "not_collected";

/** Fills `body`; returns `draw(told, chosen)`. `choose(feed, hour_us)` is called for the cell that is opened. */
export function heatmap(body, { el, put, format }, choose) {
  const labels = el("div", { class: "heat-labels" });
  const canvas = el("canvas", { tabindex: 0, role: "img" });
  const tip = el("div", { class: "heat-tip", role: "status", hidden: true });
  const plot = el("div", { class: "heat-plot" }, canvas, tip);
  let told = null, chosen = null, width = MOST, at = null, feedsDrawn = "";

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left) / width), row = Math.floor((event.clientY - box.top - TOP) / ROW);
    return told && told.feeds[row] && told.hours_us[column] !== undefined ? { row, column } : null;
  };
  const open = (where) => where && choose(told.feeds[where.row], told.hours_us[where.column]);
  const point = (where) => {
    at = where;
    paint();
    tip.hidden = !where;
    if (!where) return;
    const feed = told.feeds[where.row], cell = feed.cells[where.column];
    put(tip, el("b", {}, `${feed.exchange} ${feed.symbol} ${feed.data_type}`),
      el("span", {}, `${format.time(told.hours_us[where.column], { date: true, zone: true })}, ${WORDS[stateOf(cell)]}${cell?.provisional ? " so far" : ""}`),
      cell && el("span", {}, `${value(cell)}${format.number(cell.rows)} rows${cell.gaps ? `, ${cell.open_gaps ?? 0} of ${cell.gaps} gaps open` : ""}${cell.losses ? `, ${cell.losses} losses` : ""}`),
      (cell?.reasons ?? []).map((why) => el("span", { class: "soft" }, why)));
    const left = where.column * width, beyond = left - plot.scrollLeft > plot.clientWidth / 2;
    Object.assign(tip.style, { top: `${TOP + (where.row + 1) * ROW + 6}px`, left: beyond ? "auto" : `${left}px`, right: beyond ? `${canvas.clientWidth - left - width}px` : "auto" });
  };
  canvas.addEventListener("pointermove", (event) => point(place(event)));
  canvas.addEventListener("pointerleave", () => point(null));
  canvas.addEventListener("click", (event) => open(place(event)));
  canvas.addEventListener("blur", () => point(null));
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -1e6], End: [0, 1e6] }[event.key];
    if (!told || !told.feeds.length) return;
    if (step) {
      const from = at ?? { row: 0, column: told.hours_us.length - 1 };
      const within = (n, size) => Math.max(0, Math.min(size - 1, n));
      point(at ? { row: within(from.row + step[0], told.feeds.length), column: within(from.column + step[1], told.hours_us.length) } : from);
    } else if ((event.key === "Enter" || event.key === " ") && at) open(at);
    else return;
    event.preventDefault();
  });

  function paint() {
    const scale = devicePixelRatio || 1, colours = getComputedStyle(document.documentElement);
    const of = (name) => colours.getPropertyValue(name).trim();
    const w = told.hours_us.length * width, h = TOP + told.feeds.length * ROW + 4;
    canvas.width = w * scale;
    canvas.height = h * scale;
    Object.assign(canvas.style, { width: `${w}px`, height: `${h}px` });
    const draw = canvas.getContext("2d");
    draw.scale(scale, scale);
    axis(draw, of);
    const ink = Object.fromEntries(STATES.map((state) => [state, of(COLOURS[state])]));
    told.feeds.forEach((feed, row) => feed.cells.forEach((cell, column) => shape(draw, cell, ink, of("--panel"), column * width, TOP + row * ROW)));
    const frame = (row, column, colour) => {
      draw.strokeStyle = colour;
      draw.lineWidth = 2;
      draw.strokeRect(column * width, TOP + row * ROW, width - GAP + 1, ROW - GAP + 1);
    };
    if (chosen) {
      const row = told.feeds.findIndex((f) => `${f.exchange}/${f.symbol}/${f.data_type}` === chosen.feed);
      const column = told.hours_us.indexOf(chosen.hour_us);
      if (row >= 0 && column >= 0) frame(row, column, of("--accent"));
    }
    if (at) frame(at.row, at.column, of("--text"));
  }

  function axis(draw, of) {
    draw.font = `11px ${of("--mono")}`;
    draw.textBaseline = "alphabetic";
    const step = [1, 2, 3, 6, 12, 24].find((n) => n * width >= 34) ?? 24;
    let lastDay = -1e6;
    told.hours_us.forEach((us, column) => {
      const when = new Date(us / 1000), hour = when.getUTCHours(), x = column * width;
      if (hour === 0 || column === 0) {
        if (hour === 0) {
          draw.fillStyle = of("--line-strong");
          draw.fillRect(x - 1, 0, 1, TOP - 4);
        }
        if (x - lastDay > 46) {
          draw.fillStyle = of("--text");
          draw.fillText(when.toISOString().slice(5, 10), x + 3, 11);
          lastDay = x;
        }
      }
      if (hour % step === 0 && width * step >= 34) {
        draw.fillStyle = of("--soft");
        draw.fillText(`${String(hour).padStart(2, "0")}h`, x + 2, 27);
      }
    });
  }

  function shape(draw, cell, ink, ground, x, y) {
    const state = stateOf(cell), w = Math.max(2, width - GAP), h = ROW - GAP, cx = x + w / 2, cy = y + h / 2;
    draw.globalAlpha = (cell?.provisional ? 0.55 : 1) * (state === "unknowable" ? 0.6 : 1);
    draw.fillStyle = draw.strokeStyle = ink[state];
    draw.lineWidth = 1;
    if (state === "not_collected") {
      draw.globalAlpha = 0.8;
      draw.fillRect(cx - 1, cy - 1, 2, 2);
    } else if (state === "unknowable") {
      draw.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
      draw.save();
      draw.beginPath();
      draw.rect(x, y, w, h);
      draw.clip();
      draw.beginPath();
      for (let n = -h; n < w; n += 5) { draw.moveTo(x + n, y + h); draw.lineTo(x + n + h, y); }
      draw.stroke();
      draw.restore();
    } else {
      draw.fillRect(x, y, w, h);
      draw.fillStyle = draw.strokeStyle = ground;
      if (state === "repaired") {
        draw.beginPath();
        draw.arc(cx, cy, Math.min(4, w / 2.6), 0, 7);
        draw.fill();
      } else if (state === "gap") {
        const r = Math.min(4.5, w / 2.4);
        draw.lineWidth = 2;
        draw.beginPath();
        draw.moveTo(cx - r, cy - r); draw.lineTo(cx + r, cy + r); draw.moveTo(cx + r, cy - r); draw.lineTo(cx - r, cy + r);
        draw.stroke();
      }
    }
    draw.globalAlpha = 1;
  }

  function draw(document, opened) {
    told = document;
    chosen = opened;
    if (canvas.parentNode !== plot || plot.parentNode?.parentNode !== body) put(body, el("div", { class: "heat-grid" }, labels, plot));
    const names = JSON.stringify(told.feeds.map((f) => [f.exchange, f.symbol, f.data_type, f.configured]));
    if (names !== feedsDrawn) {
      feedsDrawn = names;
      Object.assign(labels.style, { paddingTop: `${TOP}px` });
      put(labels, told.feeds.map((f, n) => el("a", {
        href: `/market/${encodeURIComponent(f.exchange)}/${encodeURIComponent(f.symbol)}`, class: f.configured ? "" : "faint",
        title: f.configured ? `${f.exchange} ${f.symbol} ${f.data_type}` : "not in the settings any more",
      }, el("span", { class: "soft" }, n && told.feeds[n - 1].exchange === f.exchange ? "" : f.exchange), ` ${f.symbol} `, el("span", { class: "faint" }, f.data_type === "orderbook" ? "book" : f.data_type))));
    }
    width = Math.max(LEAST, Math.min(MOST, Math.floor((plot.clientWidth - 2) / told.hours_us.length)));
    const bad = told.feeds.filter((f) => f.cells.some((c) => stateOf(c) === "gap")).length;
    canvas.setAttribute("aria-label", `Completeness of ${told.feeds.length} feeds over ${told.hours_us.length} hours; ${bad} feeds have a gap. Arrows move, Enter opens; the button Table shows the same as a table.`);
    paint();
    if (at && !tip.hidden && told.feeds[at.row]) point(at);
    if (plot.dataset.hours !== String(told.hours_us.length)) {
      plot.dataset.hours = told.hours_us.length;
      plot.scrollLeft = plot.scrollWidth;
    }
  }
  return { draw };
}

/** The value of a cell in words, with what follows it; nothing where nobody knows. */
export function value(cell) {
  if (cell.value === null || cell.value === undefined) return "";
  return cell.value === 1 ? "100 % complete, " : `${(Math.min(cell.value, 0.999999) * 100).toFixed(4)} % complete, `;
}
