// Times in the reader's own zone, and copy buttons. Pages read fine without either.
"use strict";

(() => {
  const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "long" });
  const absolute = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
  const UNITS = [["year", 31557600], ["month", 2629800], ["day", 86400], ["hour", 3600], ["minute", 60]];

  function since(moment) {
    const seconds = (moment - Date.now()) / 1000;
    for (const [unit, length] of UNITS) {
      if (Math.abs(seconds) >= length) return relative.format(Math.trunc(seconds / length), unit);
    }
    return seconds > 0 ? "in less than a minute" : "just now";
  }

  function showTimes(root) {
    for (const time of root.querySelectorAll("time[datetime]")) {
      const moment = new Date(time.dateTime);
      const local = absolute.format(moment);
      const text = "full" in time.dataset ? `${local} (${since(moment)})` : since(moment);
      if (time.textContent !== text) time.textContent = text;
      time.title = local;
    }
  }

  function showCopyButtons(root) {
    // The clipboard is there on https and localhost alone.
    if (!navigator.clipboard) return;
    for (const button of root.querySelectorAll("[data-copy]")) button.hidden = false;
  }

  async function copy(button) {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    const label = button.firstChild;
    label.data = "Copied";
    setTimeout(() => { label.data = "Copy"; }, 2000);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) copy(button);
  });

  function refresh(root) {
    showTimes(root);
    showCopyButtons(root);
  }

  document.addEventListener("htmx:load", (event) => refresh(event.detail.elt.parentNode || document));
  refresh(document);
  setInterval(() => showTimes(document), 20000);
})();
