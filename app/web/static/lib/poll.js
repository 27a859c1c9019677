// Asks again and again, one question at a time, and draws only what has changed: what somebody reads or points at stays.

/** Call `ask` now and `ms` after each answer, or after what it returns. Returns a function that ends it. */
export function poll(ask, ms) {
  let timer = null, ended = false;
  const run = async () => {
    let wait = ms;
    try { wait = (await ask()) ?? ms; } catch { /* the shell says that it is stale */ }
    if (!ended) timer = setTimeout(run, wait);
  };
  run();
  return () => { ended = true; clearTimeout(timer); };
}

/** A function that calls `draw(value, ...)` where the value is another one than the last time. */
export function onChange(draw) {
  let last;
  return (value, ...more) => {
    const now = JSON.stringify([value, more]);
    if (now === last) return;
    last = now;
    draw(value, ...more);
  };
}
