// What is typed into a form and not sent yet: this tab keeps it until it is taken, over reloads too.
"use strict";

const SENT = "sent";
const addressed = () => `draft ${location.pathname}${location.search}`;
const nameOf = (field) => field.type === "checkbox" ? `${field.name}=${field.value}` : field.name;
const valueOf = (field) => field.type === "checkbox" ? field.checked : field.value;
// Never a password, nor what the server put there for itself.
const typedIn = (form) => [...form.elements].filter((field) => field.name && !["hidden", "password", "submit"].includes(field.type));

function keep(form, last) {
  const fields = typedIn(form).map((field) => [nameOf(field), valueOf(field)]);
  sessionStorage.setItem(form.place, JSON.stringify({ last, fields }));
}

function put(field, value) {
  if (field.type === "checkbox") { field.checked = value; return; }
  const lacks = field.options && ![...field.options].some((one) => one.value === value);
  if (lacks) field.add(new Option(value));
  field.value = value;
}

function restore(form, draft) {
  const values = new Map(draft.fields);
  const other = typedIn(form).filter((field) => values.has(nameOf(field)) && values.get(nameOf(field)) !== valueOf(field));
  for (const field of other) put(field, values.get(nameOf(field)));
  form.querySelector("[data-draft-note]").hidden = other.length === 0;
  // Of a form and its YAML the side that was typed in last holds: htmx asks for the other.
  const byForm = draft.last.startsWith("f.") && form.elements[draft.last];
  if (byForm) form.querySelector("#verdict")?.setAttribute("hx-vals", '{"edited": "form"}');
}

// What was taken leads to another page; what was refused comes back in the form.
const sent = sessionStorage.getItem(SENT);
sessionStorage.removeItem(SENT);
if (sent && performance.getEntriesByType("navigation")[0]?.redirectCount) sessionStorage.removeItem(sent);

const drafted = [...document.querySelectorAll("form[data-draft]")];
for (const form of drafted) {
  form.place = addressed();
  const draft = JSON.parse(sessionStorage.getItem(form.place));
  // Before htmx looks at the page, which it does when all of it is read.
  if (draft && !document.querySelector("main [role=alert]")) restore(form, draft);
  form.addEventListener("input", (event) => keep(form, event.target.name));
  form.addEventListener("submit", () => sessionStorage.setItem(SENT, form.place));
  form.querySelector("[data-draft-note] button").addEventListener("click", () => {
    sessionStorage.removeItem(form.place);
    location.reload();
  });
}
// The other side of a form, when the server has written it.
document.addEventListener("htmx:afterSettle", () => {
  for (const form of drafted) {
    const draft = JSON.parse(sessionStorage.getItem(form.place));
    if (draft) keep(form, draft.last);
  }
});
// An address that says it all needs no draft.
document.addEventListener("htmx:replacedInHistory", () => {
  for (const form of drafted) {
    sessionStorage.removeItem(form.place);
    form.place = addressed();
  }
});
