// Zoom for the drawing of a lineage, and its lines lit up from what is looked at. Without this it
// is a large picture in a region that scrolls, and its links work all the same.
"use strict";

(() => {
  const STEP = 1.25;
  const LEAST = 0.2;
  const MOST = 4;
  let zoom = null; // null: not chosen yet

  const region = () => document.querySelector("[data-lineage]");

  function sizes() {
    const place = region();
    const svg = place && place.querySelector("svg");
    if (!svg) return null;
    const box = svg.viewBox.baseVal;
    return { place, svg, width: box.width, height: box.height };
  }

  // Scales the drawing so that the point at (x, y) of the region stays where it is.
  function apply(wanted, x, y) {
    const found = sizes();
    if (!found) return;
    const { place, svg, width, height } = found;
    const before = zoom === null ? 1 : zoom;
    zoom = Math.min(MOST, Math.max(LEAST, wanted));
    const left = (place.scrollLeft + x) * (zoom / before) - x;
    const top = (place.scrollTop + y) * (zoom / before) - y;
    svg.setAttribute("width", width * zoom);
    svg.setAttribute("height", height * zoom);
    place.scrollLeft = left;
    place.scrollTop = top;
    place.dataset.zoomed = zoom.toFixed(2);
  }

  function around(factor) {
    const { place } = sizes();
    apply((zoom || 1) * factor, place.clientWidth / 2, place.clientHeight / 2);
  }

  function whole() {
    const { place, width } = sizes();
    const style = getComputedStyle(place);
    const inner = place.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    apply(Math.min(1, inner / width), 0, 0);
  }

  const MOVES = { in: () => around(STEP), out: () => around(1 / STEP), whole };
  const KEYS = { "+": "in", "=": "in", "-": "out", "0": "whole" };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-zoom]");
    if (button) MOVES[button.dataset.zoom]();
  });

  document.addEventListener("keydown", (event) => {
    const place = region();
    if (!place || !place.contains(document.activeElement)) return;
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
    event.preventDefault();
    MOVES[KEYS[event.key]]();
  });

  // A wheel with Ctrl, which is what a trackpad's pinch sends, zooms; alone it scrolls as ever.
  document.addEventListener("wheel", (event) => {
    const place = region();
    if (!event.ctrlKey || !place || !place.contains(event.target)) return;
    event.preventDefault();
    const box = place.getBoundingClientRect();
    const factor = Math.exp(-event.deltaY / 300);
    apply((zoom || 1) * factor, event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });

  let pinch = null;
  const spread = ([a, b]) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);

  document.addEventListener("touchmove", (event) => {
    const place = region();
    if (event.touches.length !== 2 || !place || !place.contains(event.target)) {
      pinch = null;
      return;
    }
    event.preventDefault();
    const [a, b] = event.touches;
    const apart = spread([a, b]);
    if (pinch !== null) {
      const box = place.getBoundingClientRect();
      const x = (a.clientX + b.clientX) / 2 - box.left;
      const y = (a.clientY + b.clientY) / 2 - box.top;
      apply((zoom || 1) * (apart / pinch), x, y);
    }
    pinch = apart;
  }, { passive: false });

  function light(event) {
    const place = region();
    if (!place) return;
    const node = event.target.closest ? event.target.closest("[data-lineage] a.node") : null;
    for (const edge of place.querySelectorAll(".edge")) {
      const near = node && (edge.dataset.from === node.id || edge.dataset.to === node.id);
      edge.classList.toggle("lit", Boolean(near));
    }
    const svg = place.querySelector("svg");
    if (svg) svg.classList.toggle("following", Boolean(node));
  }

  for (const kind of ["pointerover", "focusin", "focusout"]) document.addEventListener(kind, light);

  function show() {
    for (const element of document.querySelectorAll(".zoom, [data-zoom-help]")) element.hidden = false;
  }

  // A refresh brings the drawing as it was made; it stays as it is looked at.
  let seen = null;

  document.addEventListener("htmx:beforeSwap", () => {
    const place = region();
    seen = place && [place.scrollLeft, place.scrollTop];
  });

  document.addEventListener("htmx:load", () => {
    const place = region();
    if (!place || !seen) return;
    show();
    if (zoom !== null) apply(zoom, 0, 0);
    [place.scrollLeft, place.scrollTop] = seen;
  });

  if (region()) {
    show();
    // The newest bases are at the right.
    region().scrollLeft = region().scrollWidth;
  }
})();
