// uPlot in the page's colours, as wide as its place.

/** A colour of style.css by name, such as `--buy`, with transparency from 0 to 1. */
export function colour(name, alpha = 1) {
  const value = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return alpha === 1 || value.length !== 7 ? value : value + Math.round(alpha * 255).toString(16).padStart(2, "0");
}

/** An axis in the page's style; `more` as uPlot has it. */
export function axis(more = {}) {
  return {
    stroke: colour("--soft"), font: "11px ui-monospace, SF Mono, DejaVu Sans Mono, Menlo, Consolas, monospace",
    grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, gap: 6, ...more,
  };
}

/** A chart as large as `place`, which style.css gives its height. Returns the uPlot and a function that ends it. */
export function chart(place, options, data) {
  const size = () => ({ width: Math.max(200, place.clientWidth), height: Math.max(120, place.clientHeight) });
  const plot = new window.uPlot({ ...size(), legend: { show: false }, ...options }, data, place);
  const watch = new ResizeObserver(() => plot.setSize(size()));
  watch.observe(place);
  return [plot, () => { watch.disconnect(); plot.destroy(); }];
}
