// One market, live.

export async function show(root, { exchange, symbol }, { put, el }) {
  put(root, el("section", { class: "panel" }, el("h1", {}, `${symbol} `, el("span", { class: "soft" }, exchange))));
}
