// Dialogs: a frame, forms, lists, and the help. <dialog> keeps the focus inside and gives it back.

import { clean } from "../text.js";
import { el, iconButton } from "./dom.js";

/** Opens a dialog with these nodes. Returns its body; `body.close()` closes it. */
export function openDialog(title, ...nodes) {
  const close = () => dialog.close();
  const body = el("div", { class: "dialog-body" }, ...nodes);
  const heading = el("h2", { id: `dialog-${(count += 1)}` }, title);
  const dialog = el(
    "dialog",
    { "aria-labelledby": heading.id },
    el("div", { class: "panel-head" }, heading, iconButton("close", "Close", close)),
    body,
  );
  body.close = close;
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) close();
  });
  document.body.append(dialog);
  dialog.showModal();
  return body;
}
let count = 0;

/**
 * A form in a dialog. `fields`: `{ name, label, value, options, ...properties of the input }`. `action(values)` may
 * throw or reject: the error is shown and the dialog stays.
 */
export function askDialog(title, { text, fields = [], button, isDanger = false, action }) {
  const error = el("p", { class: "error", role: "alert" });
  const submit = el("button", { class: isDanger ? "danger" : "primary" }, button);
  const form = el(
    "form",
    {},
    text ? el("p", { class: "isolate" }, text) : null,
    ...fields.map(fieldNode),
    error,
    el("div", { class: "buttons" }, el("button", { type: "button", onclick: () => body.close() }, "Cancel"), submit),
  );
  const body = openDialog(title, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    error.textContent = "";
    submit.disabled = true;
    try {
      await action(valuesOf(form, fields));
      body.close();
    } catch (problem) {
      error.textContent = clean(problem.message);
    } finally {
      submit.disabled = false;
    }
  });
  form.querySelector("input:not([type=hidden]), select, textarea")?.focus();
  return body;
}

function fieldNode({ name, label, value, options, ...properties }) {
  if (properties.type === "checkbox") return el("label", { class: "check" }, el("input", { name, checked: Boolean(value), ...properties }), label);
  const field = options
    ? el("select", { name }, ...options.map(([shown, each]) => el("option", { value: each }, shown)))
    : el("input", { name, autocomplete: "off", value: value ?? "", ...properties });
  return el("label", {}, label, field);
}

function valuesOf(form, fields) {
  return Object.fromEntries(
    fields.map(({ name, type }) => [name, type === "checkbox" ? form.elements[name].checked : form.elements[name].value]),
  );
}

/** A dialog with a list that is loaded: `load()` is a promise of rows, `row(value, reload)` gives the nodes of each. */
export function listDialog(title, { load, row, empty, head = [] }) {
  const list = el("ul", { class: "rows" });
  const state = el("p", { class: "hint", role: "status" }, "Loading…");
  const body = openDialog(title, ...head, state, list);
  const reload = async (known) => {
    try {
      const rows = known ?? (await load());
      list.replaceChildren(...rows.map((each) => el("li", {}, ...row(each, reload))));
      state.textContent = rows.length ? "" : empty;
      state.hidden = rows.length > 0;
    } catch (error) {
      state.hidden = false;
      state.replaceChildren(el("span", { class: "error" }, clean(error.message)));
    }
  };
  body.reload = reload;
  reload();
  return body;
}

/** A button that runs a request, and shows why it failed in its place. */
export function actButton(label, action, properties = {}) {
  const button = el("button", { type: "button", ...properties }, label);
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await action();
    } catch (error) {
      button.after(el("span", { class: "error", role: "alert" }, clean(error.message)));
    } finally {
      button.disabled = false;
    }
  });
  return button;
}

const KEYS = [
  ["Enter", "send the message"],
  ["Shift+Enter", "a new line"],
  ["Alt+↑, Alt+↓", "the conversation above or below"],
  ["Ctrl+K, or /", "search (/ outside of a text box)"],
  ["Page Up, Page Down", "older and newer messages"],
  ["↑ in an empty box", "go to the messages: ↑ and ↓ move, Enter opens the actions of one"],
  ["End", "in the messages: the newest"],
  ["Esc", "close, and back to the text box"],
  ["?", "this help (outside of a text box)"],
];

/** The keys, and the commands that can be typed: `{ word, arguments, help }`. */
export function helpDialog(commands) {
  openDialog(
    "Help",
    el("dl", { class: "keys" }, ...KEYS.flatMap(([keys, does]) => [el("dt", {}, el("kbd", {}, keys)), el("dd", {}, does)])),
    el("p", {}, "Any other text is a message. A line that begins with / is a command:"),
    el(
      "dl",
      { class: "keys" },
      ...commands.flatMap(({ word, arguments: words, help }) => [el("dt", {}, el("kbd", {}, `${word} ${words ?? ""}`.trim())), el("dd", {}, help)]),
    ),
    el("p", { class: "hint" }, "A line in ``` fences or with four spaces before it is shown as code."),
  );
}
