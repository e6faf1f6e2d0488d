// Renews the panels that have changed, once a second, and marks what is new.
"use strict";

const panels = "[data-panel]";
const served = new Map(); // what the server has sent, by the panel's id

for (const panel of document.querySelectorAll(panels)) {
  served.set(panel.id, panel.innerHTML);
}

function textByKey(panel) {
  return new Map(Array.from(panel.querySelectorAll("[data-key]"), (e) => [e.dataset.key, e.textContent]));
}

function renew(panel, next) {
  if (served.get(panel.id) === next.innerHTML) return;
  served.set(panel.id, next.innerHTML);
  const before = textByKey(panel);
  for (const e of next.querySelectorAll("[data-key]")) {
    e.classList.toggle("new", before.get(e.dataset.key) !== e.textContent);
  }
  panel.replaceChildren(...next.childNodes);
}

// A mail is shown whole: its frame is as high as what is in it.
function fit(frame) {
  const root = frame.contentDocument?.documentElement;
  if (!root || !frame.offsetWidth) return;
  frame.style.height = "0";
  frame.style.height = `${root.scrollHeight + frame.offsetHeight - frame.clientHeight}px`;
}

function fitAll() {
  document.querySelectorAll("iframe.html").forEach(fit);
}

// Neither event bubbles.
document.addEventListener("load", (e) => { if (e.target.matches?.("iframe.html")) fit(e.target); }, true);
document.addEventListener("toggle", fitAll, true);
document.addEventListener("change", fitAll);
addEventListener("resize", fitAll);
fitAll();

async function refresh() {
  if (document.hidden) return;
  const response = await fetch("/demo/panels");
  if (!response.ok) return;
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const next of fresh.querySelectorAll(panels)) {
    const panel = document.getElementById(next.id);
    if (panel) renew(panel, next);
  }
}

async function watch() {
  try {
    await refresh();
  } catch {
    // The host is not there for now.
  }
  setTimeout(watch, 1000);
}

watch();
