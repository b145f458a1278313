// Turns the event stream into refreshes of the parts that an event concerns.
//
// htmx alone does not suffice: its `delay` never fires under a steady stream, its `throttle`
// forgets the last event. Here a burst costs one fetch, a stream one a second, and the last
// event is always followed by one.
"use strict";

(() => {
  const GATHER_MS = 150;
  const PAUSE_MS = 1000;
  const pulse = document.getElementById("pulse");
  const shown = new Map(); // part id -> what it was last fetched as
  const waiting = new Set(); // kinds of events that no refresh has answered yet
  let timer = null;
  let last = 0;
  let source = null;

  function say(state, text) {
    pulse.hidden = false;
    pulse.dataset.state = state;
    if (pulse.textContent !== text) pulse.textContent = text;
  }

  function schedule(kind) {
    waiting.add(kind);
    if (timer === null) {
      timer = setTimeout(refresh, Math.max(GATHER_MS, last + PAUSE_MS - Date.now()));
    }
  }

  function refresh() {
    timer = null;
    last = Date.now();
    for (const part of document.querySelectorAll("[data-live]")) {
      const kinds = part.dataset.live.split(" ");
      if (waiting.has("any") || kinds.some((kind) => waiting.has(kind))) {
        htmx.trigger(part, "refresh");
      }
    }
    waiting.clear();
  }

  document.addEventListener("htmx:sseMessage", (event) => {
    // What was missed cannot be told: everything may be another thing now.
    const kind = event.detail.type.split(".")[0];
    schedule(kind === "events" ? "any" : kind);
  });

  document.addEventListener("htmx:sseOpen", (event) => {
    source = event.detail.source;
    say("on", "Live");
    // Something may have happened between the page and the stream, or while it was cut.
    schedule("any");
  });

  document.addEventListener("htmx:sseError", () => say("off", "Reconnecting"));

  // A browser opens six connections to a server; hidden tabs must not hold them all.
  document.addEventListener("visibilitychange", () => {
    const wire = document.getElementById("wire");
    if (!wire) return;
    if (document.hidden) {
      if (source) source.close();
    } else {
      const fresh = wire.cloneNode();
      wire.replaceWith(fresh);
      htmx.process(fresh);
    }
  });

  document.addEventListener("htmx:beforeRequest", (event) => {
    if (document.hidden) event.preventDefault();
  });

  // As they came with the page: neither htmx nor page.js has changed them yet.
  const first = new Map();
  for (const part of document.querySelectorAll("[data-live]")) first.set(part.id, part.outerHTML);

  function isFirst(id, text) {
    const fetched = document.createElement("template");
    fetched.innerHTML = text.trim();
    const part = fetched.content.firstElementChild;
    return part !== null && first.get(id) === part.outerHTML;
  }

  // What the reader has scrolled, opened or focused stays so; and what is there already is not
  // swapped in, which would take away the selection.
  const kept = new Map();
  const nameOf = (element) =>
    element.id || element.getAttribute("href") || element.getAttribute("aria-label");

  document.addEventListener("htmx:beforeSwap", (event) => {
    const { xhr, target } = event.detail;
    if (!event.detail.shouldSwap) return;
    const known = shown.get(target.id);
    const text = xhr.responseText;
    shown.set(target.id, text);
    if (known === undefined ? isFirst(target.id, text) : known === text) {
      event.detail.shouldSwap = false;
      return;
    }
    const focused = document.activeElement;
    kept.set(target.id, {
      scrolled: Array.from(target.querySelectorAll(".scroll"), (region) => region.scrollLeft),
      opened: Array.from(target.querySelectorAll("details[open]"), (details) => details.id),
      focused: target.contains(focused) ? nameOf(focused) : null,
    });
  });

  document.addEventListener("htmx:load", (event) => {
    const part = event.detail.elt;
    const before = kept.get(part.id);
    if (!before) return;
    part.querySelectorAll(".scroll").forEach((region, index) => {
      region.scrollLeft = before.scrolled[index] || 0;
    });
    for (const details of part.querySelectorAll("details")) {
      details.open = before.opened.includes(details.id);
    }
    if (before.focused === null) return;
    const places = part.querySelectorAll("a, button, summary, [tabindex]");
    const same = Array.from(places).find((element) => nameOf(element) === before.focused);
    if (same) same.focus({ preventScroll: true });
  });
})();
