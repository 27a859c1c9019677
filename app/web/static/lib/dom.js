// Builds the page. Text is only ever text: what a venue says is never read as markup, for there is no way to say markup here.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "path", "line", "rect", "circle", "polyline", "g", "title"]);

/** An element with attributes and children (nodes, texts, numbers; null and false are left out).
 * Attributes: `class`, `dataset: {}`, `style: {}` (through the object model: the policy forbids style attributes),
 * `on: {click: fn}`, anything else as it is; true sets it, false, null and undefined leave it out. */
export function el(tag, attrs = {}, ...children) {
  const node = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attrs ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "dataset") Object.assign(node.dataset, value);
    else if (name === "style") Object.assign(node.style, value);
    else if (name === "on") for (const [event, fn] of Object.entries(value)) node.addEventListener(event, fn);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  put(node, ...children);
  return node;
}

/** Replace what is in `node`. */
export function put(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false)
    .map((c) => (c instanceof Node ? c : document.createTextNode(String(c)))));
  return node;
}

/** Set the text of `node` where it is another one: an element that stays the same is not painted again. */
export function say(node, text) {
  const words = String(text);
  if (node.textContent !== words) node.textContent = words;
  return node;
}

/** A table: `columns` are [heading, class], `rows` arrays of cells (texts or nodes). */
export function table(columns, rows, empty = "Nothing") {
  return el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, columns.map(([heading, kind]) => el("th", { class: kind, scope: "col" }, heading)))),
    el("tbody", {}, rows.length
      ? rows.map((cells) => el("tr", {}, cells.map((cell, i) => el("td", { class: columns[i][1] }, cell))))
      : el("tr", {}, el("td", { colspan: columns.length, class: "empty" }, empty)))));
}
