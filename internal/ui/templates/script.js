(() => {
  const fields = document.querySelectorAll("input[type=password]");
  const show = document.querySelector("#show");
  const reveal = (on) => fields.forEach((f) => { f.type = on ? "text" : "password"; });
  if (show) {
    show.parentNode.hidden = false;
    show.addEventListener("change", () => reveal(show.checked));
  }
  const email = document.querySelector("#email");
  if (email) { // with autofocus the caret would stand before what was typed
    const typed = email.value;
    email.value = "";
    email.value = typed;
  }
  const form = document.querySelector("form");
  if (!form) return;
  let sent = false;
  form.addEventListener("submit", (e) => {
    if (sent) return e.preventDefault();
    sent = true;
    reveal(false); // or the browser would remember the password as text
    form.querySelector("[type=submit]").setAttribute("aria-disabled", "true");
  });
  addEventListener("pageshow", (e) => { // also when the back button brings the page
    // Browsers may keep it, no-store or not, with the passwords in it.
    if (e.persisted && fields.length) return location.replace(location.href);
    sent = false;
    form.querySelector("[type=submit]").removeAttribute("aria-disabled");
    if (show) reveal(show.checked);
  });
})();
