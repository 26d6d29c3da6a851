// Small helps for forms; each works without them, too.
(() => {
  "use strict";
  // A form marked `data-auto` is sent when a choice of it changes.
  document.addEventListener("change", (event) => {
    const form = event.target.closest("form[data-auto]");
    if (form && event.target.matches("select, input[type=checkbox], input[type=radio]")) form.requestSubmit();
  });
  // A form for a search leaves empty fields out of the address.
  document.addEventListener("submit", (event) => {
    if (event.target.method !== "get") return;
    const empty = [...event.target.elements].filter((field) => field.name && !field.value);
    for (const field of empty) field.disabled = true;
    setTimeout(() => { for (const field of empty) field.disabled = false; });
  });
  // A button marked `data-confirm` asks before it acts.
  document.addEventListener("submit", (event) => {
    const question = event.submitter?.dataset.confirm;
    if (question && !window.confirm(question)) event.preventDefault();
  });
  // `/` goes to the first field of the search.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input, select, textarea")) return;
    const field = document.querySelector("[data-search]");
    if (!field) return;
    event.preventDefault();
    field.focus();
  });
  // A form marked `data-go-on` is sent beside the page, again and again, until the page has none any more.
  let isGoing = false;
  const goOn = async () => {
    const form = document.querySelector("form[data-go-on]");
    if (!form) return clearInterval(timer);
    if (isGoing || document.hidden) return;
    isGoing = true;
    try {
      await fetch(form.action, { method: "POST", body: new FormData(form), credentials: "same-origin", redirect: "manual" });
      document.dispatchEvent(new CustomEvent("board:update"));
    } catch {
      // No answer: a worker goes on in the meantime, and so does the next turn.
    } finally {
      isGoing = false;
    }
  };
  const timer = setInterval(goOn, 1000);
  goOn();
})();
