// Every market and feed, what waits between the stations, what is troubled, and the last ends of connections.

export async function show(root, params, { stream, el, put, table, format, health }) {
  const grid = el("section", { class: "panel" });
  put(root, grid);
  return stream("/api/stream", {
    overview(told) {
      health(told.health);
      put(grid, table([["Market", ""], ["Feed", ""], ["State", ""], ["Age", "n"], ["Rate", "n"]],
        told.markets.flatMap((m) => m.feeds.map((f) => [
          el("a", { href: `/market/${m.exchange}/${m.symbol}` }, `${m.exchange} ${m.symbol}`), f.feed,
          el("span", { class: "stateful" }, el("i", { class: "mark", dataset: { state: f.state } }), f.state),
          format.age(f.age_s), format.rate(f.rate_per_s)]))));
    },
  });
}
