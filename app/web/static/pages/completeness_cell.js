// What is known of one feed in one hour: gaps and what became of them, losses, checks, connections, objects.

export function opened(told, tools, close) {
  const { el, table, format } = tools;
  const { time, number, bytes } = format;
  const all = [...told.objects, ...told.running];
  const rows = all.reduce((n, one) => n + one.rows, 0);
  const at = (us) => time(us, { ms: true });
  const market = `/market/${encodeURIComponent(told.exchange)}/${encodeURIComponent(told.symbol)}`;
  const none = [];
  const panel = (title, { total, newest }, columns, row) => {
    if (!total) return none.push(title.toLowerCase()) && null;
    return el("section", { class: "panel" },
      el("header", {}, el("h2", {}, title), el("span", { class: "right" }, total > newest.length ? `the newest ${newest.length} of ${number(total)}` : number(total))),
      el("div", { class: "tall" }, table(columns, newest.map(row))));
  };
  const lists = [
    panel("Gaps", told.gaps, [["Missing ids", "n"], ["Size", "n"], ["Between", "t"], ["Cause", ""], ["State", ""], ["Found", "n"]],
      (g) => [`${g.from_id} – ${g.to_id}`, number(g.size), `${at(g.before_us)} – ${at(g.after_us)}`, g.cause, g.repair ?? "open", number(g.found)]),
    panel("Repairs", told.repairs, [["Found out", "t"], ["State", ""], ["Found", "n"], ["What remains, in words", "words"]],
      (r) => [time(r.found_us, { date: true }), r.state, number(r.found), r.detail]),
    panel("Losses", told.losses, [["From", "t"], ["To", "t"], ["Events", "n"], ["Cause", ""], ["Numbers", "n"]],
      (l) => [at(l.start_us), at(l.end_us), l.count === null ? "unknown" : number(l.count), l.cause, `${l.first} – ${l.last}`]),
    panel("Checks", told.checks, [["From", "t"], ["To", "t"], ["Kind", ""], ["Verdict", ""], ["In words", "words"]],
      (c) => [at(c.start_us), at(c.end_us), c.kind, c.verdict, c.detail]),
    panel("Connections", told.epochs, [["Opened", "t"], ["Ended", "t"], ["Why", ""], ["Kind", ""], ["Epoch", "t"]],
      (e) => [time(e.opened_us, { date: true }), e.ended_us ? time(e.ended_us, { date: true }) : "–", e.reason ?? "goes on, or not yet known", e.kind, e.epoch.slice(0, 8)]),
  ];
  return el("div", { class: "cell", tabindex: -1, "aria-label": "The hour that was opened" },
    el("section", { class: "panel" },
      el("header", {}, el("h1", {}, el("a", { href: market }, `${told.exchange} ${told.symbol}`), ` ${told.data_type}`),
        el("span", { class: "soft" }, `the hour from ${time(told.hour_us, { date: true, zone: true })}, ${number(rows)} rows`),
        el("span", { class: "right" }, el("button", { type: "button", on: { click: close } }, "Close"))),
      table([["Object", "words"], ["Rows", "n"], ["Complete", "n"], ["Stored", "n"], ["First row", "t"], ["Last row", "t"], ["Why it is not proved", "words"]],
        all.map((one) => [
          one.key ? el("a", { href: `/archive?key=${encodeURIComponent(one.key)}`, class: "mono" }, one.key) : el("span", { class: "soft" }, "not archived yet: judged by what was seen at receipt"),
          number(one.rows), percent(one.completeness), one.key ? bytes(one.size_bytes) : "–", at(one.first_collector_us), at(one.last_collector_us),
          one.completeness_reasons.length ? el("ul", { class: "reasons" }, one.completeness_reasons.map((why) => el("li", {}, why))) : "",
        ]), "Nothing was collected in this hour")),
    el("div", { class: "columns wide" }, lists),
    none.length ? el("p", { class: "soft" }, `On record of this hour: no ${none.join(", no ")}.`) : null);
}

function percent(value) {
  if (value === null || value === undefined) return "unknowable";
  return value === 1 ? "100 %" : `${(Math.min(value, 0.999999) * 100).toFixed(4)} %`;
}
