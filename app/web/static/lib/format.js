// Numbers for people, each with its unit. Times are microseconds since 1970 UTC; they are shown in UTC unless asked otherwise.

export const NONE = "–";

const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

/** Seconds, as an age: `0.4 s`, `12 s`, `3 min`, `2.1 h`, `3.4 d`. */
export function age(seconds) {
  if (!known(seconds)) return NONE;
  const s = Math.max(0, seconds);
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${(s / 3600).toFixed(1)} h`;
  return `${(s / 86400).toFixed(1)} d`;
}

/** Bytes in steps of 1000: `812 B`, `1.4 MB`. */
export function bytes(count) {
  if (!known(count)) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let value = count, step = 0;
  while (Math.abs(value) >= 999.5 && step < units.length - 1) { value /= 1000; step += 1; }
  return `${step && Math.abs(value) < 99.95 ? value.toFixed(1) : Math.round(value)} ${units[step]}`;
}

/** Events (or what `unit` says) a second: `12.3 /s`, `1,204 /s`. */
export function rate(perSecond, unit = "") {
  if (!known(perSecond)) return NONE;
  const digits = perSecond < 10 ? 2 : perSecond < 100 ? 1 : 0;
  return `${number(perSecond, digits)}${unit ? ` ${unit}` : ""} /s`;
}

/** A number with thousands apart. */
export function number(value, digits = 0) {
  if (!known(value)) return NONE;
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** Milliseconds: `0.42 ms`, `51 ms`, `1.2 s`. */
export function milliseconds(ms) {
  if (!known(ms)) return NONE;
  if (Math.abs(ms) >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.abs(ms) < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

let zone = "UTC";

/** `UTC` or `local`: which of them `time` shows. */
export function useZone(name) { zone = name === "local" ? "local" : "UTC"; }
export function zoneName() { return zone; }

const two = (n) => String(n).padStart(2, "0");

/** A time of microseconds: `19:02:11`; `date: true` puts the day before it, `ms: true` shows milliseconds,
 * `zone: true` says which zone it is. */
export function time(us, { date = false, ms = false, zone: named = false } = {}) {
  if (!known(us)) return NONE;
  const at = new Date(us / 1000);
  const local = zone === "local";
  const part = (name) => (local ? at[`get${name}`]() : at[`getUTC${name}`]());
  const day = `${part("FullYear")}-${two(part("Month") + 1)}-${two(part("Date"))}`;
  const clock = `${two(part("Hours"))}:${two(part("Minutes"))}:${two(part("Seconds"))}`;
  const fraction = ms ? `.${String(part("Milliseconds")).padStart(3, "0")}` : "";
  return `${date ? `${day} ` : ""}${clock}${fraction}${named ? ` ${zoneLabel(at)}` : ""}`;
}

/** The name of the zone that is shown, as it stands beside a time. */
export function zoneLabel(at = new Date()) {
  if (zone !== "local") return "UTC";
  const minutes = -at.getTimezoneOffset();
  const sign = minutes < 0 ? "-" : "+";
  return `UTC${sign}${two(Math.floor(Math.abs(minutes) / 60))}:${two(Math.abs(minutes) % 60)}`;
}
