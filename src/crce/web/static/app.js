"use strict";
// What the pages need beyond htmx: keys on the table of phrases, errors above the page, images hidden until clicked.

const notice = (text) => {
  const place = document.getElementById("notice");
  place.textContent = text;
  place.hidden = !text;
};

document.addEventListener("htmx:responseError", (event) => notice(event.detail.xhr.responseText));
document.addEventListener("htmx:sendError", () => notice("The server does not answer. Jobs go on; this page tries again."));
document.addEventListener("htmx:afterRequest", (event) => event.detail.successful && notice(""));

const rows = () => [...document.querySelectorAll(".phrase")];
let chosen = null; // the number of the row that keys act on; it outlives a swap of the table

const choose = (row) => {
  if (!row) return;
  chosen = row.dataset.number;
  row.focus();
};

document.addEventListener("htmx:afterSettle", () => {
  const row = document.querySelector(`.phrase[data-number="${chosen}"]`);
  if (row && (document.activeElement === document.body || !document.activeElement)) row.focus();
});

document.addEventListener("focusin", (event) => {
  const row = event.target.closest(".phrase");
  if (row) chosen = row.dataset.number;
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
  const all = rows();
  if (!all.length) return;
  const at = all.findIndex((row) => row.dataset.number === chosen);
  if (event.key === "j") choose(all[Math.min(at + 1, all.length - 1)]);
  else if (event.key === "k") choose(all[Math.max(at - 1, 0)]);
  else if (event.key === "u") document.querySelector('[data-key="u"]')?.click();
  else if ("arme".includes(event.key) && at >= 0) all[at].querySelector(`[data-key="${event.key}"]`)?.click();
  else return;
  event.preventDefault();
});

document.addEventListener("click", (event) => {
  const hidden = event.target.closest(".explicit:not(.shown)");
  if (!hidden) return;
  hidden.classList.add("shown");
  event.preventDefault();
});

document.addEventListener("click", (event) => {
  const command = event.target.closest("code.copy");
  if (command) navigator.clipboard?.writeText(command.textContent).then(() => notice("The command is copied."), () => {});
});

document.addEventListener("input", (event) => {
  const shows = event.target.dataset.shows;
  if (shows) document.getElementById(shows).textContent = event.target.value;
});

document.addEventListener("change", (event) => {
  if (event.target.dataset.go) location.assign(event.target.dataset.go + encodeURIComponent(event.target.value));
});
