// The key `/`: a market by a few letters of its exchange and symbol.

const MOST = 12;

export function finder({ api, el, put, go }) {
  const dialog = document.getElementById("finder");
  const text = document.getElementById("finder-text");
  const list = document.getElementById("finder-found");
  let markets = [], chosen = 0;

  const path = (m) => `/market/${encodeURIComponent(m.exchange)}/${encodeURIComponent(m.symbol)}`;
  const found = () => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    return markets.filter((m) => words.every((w) => `${m.exchange} ${m.symbol}`.toLowerCase().includes(w))).slice(0, MOST);
  };
  const draw = () => {
    const shown = found();
    chosen = Math.max(0, Math.min(chosen, shown.length - 1));
    put(list, shown.length ? shown.map((m, i) => el("li", { "aria-selected": String(i === chosen) },
      el("a", { href: path(m), on: { click: () => dialog.close() } }, el("b", {}, m.symbol), " ", el("span", {}, m.exchange))))
      : el("li", { class: "empty" }, "No such market"));
  };
  const open = async () => {
    if (dialog.open) return;
    text.value = "";
    chosen = 0;
    dialog.showModal();
    text.focus();
    draw();
    try { markets = (await api("/api/markets")).markets; } catch { markets = []; }
    draw();
  };

  document.getElementById("find").addEventListener("click", open);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest?.("input, textarea, select")) return;
    event.preventDefault();
    open();
  });
  text.addEventListener("input", () => { chosen = 0; draw(); });
  text.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      chosen += event.key === "ArrowDown" ? 1 : -1;
      event.preventDefault();
      draw();
    } else if (event.key === "Enter") {
      const market = found()[chosen];
      dialog.close();
      if (market) go(path(market));
    }
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
}
