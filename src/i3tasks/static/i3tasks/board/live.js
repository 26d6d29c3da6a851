// Keeps the page up to date: fetches it again, and puts its parts marked `data-live` in the place of the old ones.
// It rests while the tab is hidden, while paused, and while something in a part is in use: a selected text, a ticked box.
(() => {
  "use strict";
  const bar = document.getElementById("live");
  const said = document.getElementById("live-said");
  const every = document.getElementById("live-every");
  const pause = document.getElementById("live-pause");
  const KEY = "i3tasks-board-live";
  const parts = () => document.querySelectorAll("[data-live][id]");
  if (!bar || !parts().length) return;

  let kept = { every: "5", paused: false };
  try {
    kept = { ...kept, ...JSON.parse(localStorage.getItem(KEY)) };
  } catch { /* nothing was kept, or nothing may be */ }
  let timer = 0;
  let isAsking = false;

  const keep = () => {
    try {
      localStorage.setItem(KEY, JSON.stringify(kept));
    } catch { /* private mode */ }
  };
  const say = (text, mood) => {
    if (said.textContent !== text) said.textContent = text;
    bar.dataset.mood = mood;
  };
  const clock = () => new Date().toLocaleTimeString();

  const isInUse = (part) => {
    const selection = document.getSelection();
    if (selection && !selection.isCollapsed && part.contains(selection.anchorNode)) return true;
    if (part.querySelector("input:checked:not([type=hidden]), dialog[open]")) return true;
    const focused = document.activeElement;
    return part.contains(focused) && focused.matches("input:not([type=checkbox]), select, textarea");
  };

  const put = (part, fresh) => {
    if (part.outerHTML === fresh.outerHTML) return;
    const open = [...part.querySelectorAll("details[open][id]")].map((one) => one.id);
    for (const one of fresh.querySelectorAll("details[id]")) one.open = open.includes(one.id) || one.open;
    const scrolled = [...part.querySelectorAll("[data-scroll]")].map((one) => [one.dataset.scroll, one.scrollLeft, one.scrollTop]);
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    const same = focused && (focused.id ? `#${CSS.escape(focused.id)}` : focused.getAttribute("href") && `a[href="${CSS.escape(focused.getAttribute("href"))}"]`);
    part.replaceWith(document.adoptNode(fresh));
    for (const [name, left, top] of scrolled) {
      const box = fresh.querySelector(`[data-scroll="${CSS.escape(name)}"]`);
      if (box) [box.scrollLeft, box.scrollTop] = [left, top];
    }
    if (same) fresh.querySelector(same)?.focus({ preventScroll: true });
  };

  const update = async () => {
    if (isAsking) return;
    isAsking = true;
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", headers: { "X-Requested-With": "i3tasks-board" } });
      if (answer.redirected && new URL(answer.url).pathname !== location.pathname) return stop("Signed out: load the page again");
      if (answer.status === 403 || answer.status === 404) return stop("No longer to be seen: load the page again");
      if (!answer.ok) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (kept.paused) return;
      for (const part of parts()) {
        const other = fresh.getElementById(part.id);
        if (other && !isInUse(part)) put(part, other);
      }
      document.title = fresh.title;
      say(`Live · ${clock()}`, "live");
      document.dispatchEvent(new CustomEvent("board:updated"));
    } catch {
      say("No answer: trying again", "trouble");
    } finally {
      isAsking = false;
    }
  };

  const stop = (text) => {
    clearInterval(timer);
    timer = 0;
    say(text, "trouble");
  };
  const start = (now) => {
    clearInterval(timer);
    timer = 0;
    pause.setAttribute("aria-pressed", String(kept.paused));
    pause.textContent = kept.paused ? "Resume" : "Pause";
    if (kept.paused) return say("Paused", "paused");
    if (document.hidden) return;
    say(`Live · ${clock()}`, "live");
    if (now) update();
    timer = setInterval(update, Number(every.value) * 1000);
  };

  if ([...every.options].some((option) => option.value === kept.every)) every.value = kept.every;
  else every.value = "5";
  every.addEventListener("change", () => {
    kept.every = every.value;
    keep();
    start(true);
  });
  pause.addEventListener("click", () => {
    kept.paused = !kept.paused;
    keep();
    start(true);
  });
  document.addEventListener("visibilitychange", () => start(true));
  document.addEventListener("board:update", update);
  bar.hidden = false;
  start(false);
})();
