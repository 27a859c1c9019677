// Asks the server. What cannot be asked any more is said, and the page greys out instead of showing old figures as new ones.

/** Without a word for so long, milliseconds, a stream is stale; then it is opened again every so often. */
const SILENCE_MS = 5000, RETRY_MS = 2000;

/** Reasons for which the page is stale, by the path that is asked. */
const stale = new Map();
let told = () => {};

/** `fn(reasons)` is called with the words of everything that is stale, whenever that changes. */
export function onStale(fn) { told = fn; }

/** Say why what `path` tells is old; "" where it is not. */
export function mark(path, words = "") {
  if ((stale.get(path) ?? "") === words) return;
  if (words) stale.set(path, words); else stale.delete(path);
  told([...new Set(stale.values())]);
}

/** Forget what was stale: another page is shown. */
export function forget() { stale.clear(); told([]); }

/** The JSON document at `path`. Throws an Error with the server's words, and marks the page; `status` is its code. */
export async function api(path) {
  let answer;
  try {
    answer = await fetch(path, { headers: { Accept: "application/json" }, cache: "no-store" });
  } catch {
    mark(path, "The web process does not answer");
    throw new Error("The web process does not answer");
  }
  let document = null;
  try { document = await answer.json(); } catch { /* a proxy's page: its status has to do */ }
  if (!answer.ok) {
    const fault = new Error(document?.error ?? document?.detail ?? `HTTP ${answer.status}`);
    fault.status = answer.status;
    if (answer.status !== 404) mark(path, fault.message);
    throw fault;
  }
  mark(path);
  return document;
}

/** Follow the events at `path`: `handlers` by event name, each given the document. Returns a function that ends it.
 * The event `away` is the server's own word that it cannot tell (Redis does not answer). `handlers.stale(age_s)` is called
 * every second while nothing comes. */
export function stream(path, handlers) {
  let source = null, last = Date.now(), opened = 0, ended = false;
  const open = () => {
    opened = Date.now();
    source?.close();
    source = new EventSource(path);
    for (const [name, fn] of Object.entries({ away: (d) => mark(path, d.words), ...handlers })) {
      if (name === "stale") continue;
      source.addEventListener(name, (event) => {
        if (ended) return;
        last = Date.now();
        const document = JSON.parse(event.data);
        if (name !== "away") mark(path);
        fn(document);
      });
    }
  };
  const watch = setInterval(() => {
    const silent = Date.now() - last;
    if (silent < SILENCE_MS) return;
    mark(path, "The web process does not answer");
    handlers.stale?.(silent / 1000);
    // A browser gives up after a refusal, and waits long after others: we do not.
    if (source.readyState === EventSource.CLOSED && Date.now() - opened > RETRY_MS) open();
    else if (Date.now() - opened > SILENCE_MS) open();
  }, 1000);
  open();
  return () => { ended = true; clearInterval(watch); source.close(); mark(path); };
}
