// Dialogs: a frame, forms, lists that are loaded, and the help. <dialog> keeps the focus inside and gives it back.

import { clean } from "../text.js";
import { h, iconButton, onSubmit } from "./dom.js";

/** Opens a dialog with these nodes. Returns a function that closes it. */
export function openDialog(title, ...nodes) {
  const close = () => dialog.close();
  const head = h("div.panel-head", h("h2", title), iconButton("close", "Close", close));
  const dialog = h("dialog", { "aria-label": title }, head, h("div.dialog-body", {}, ...nodes));
  dialog.addEventListener("close", () => {
    dialog.remove();
    restoreCursor(document.activeElement);
  });
  dialog.addEventListener("click", ({ target }) => target === dialog && close());
  document.body.append(dialog);
  dialog.showModal();
  return close;
}

/** A text box to which chromium has given the focus back may have no cursor: what is typed is lost. */
function restoreCursor(box) {
  if (!box?.matches("input, textarea")) return;
  box.blur();
  box.focus({ preventScroll: true });
}

/**
 * A form in a dialog. `fields`: `{ name, label, options, ...properties of the input }`. `action(values)` may reject: the
 * error is shown and the dialog stays. It may resolve to a function that is called when the dialog is closed: what a modal
 * dialog covers can't take the focus.
 */
export function askDialog(title, { text = null, fields = [], button, isDanger = false, action }) {
  const error = h("p.error", { role: "alert" });
  const submit = h(isDanger ? "button.danger" : "button.primary", button);
  submit.type = "submit";
  const buttons = h("div.buttons", h("button", { onclick: () => close() }, "Cancel"), submit);
  const form = h("form", {}, text && h("p", { dir: "auto" }, text), ...fields.map(fieldNode), error, buttons);
  onSubmit(form, async () => {
    submit.disabled = true;
    try {
      const inputs = fields.map(({ name }) => form.elements[name]);
      const then = await action(Object.fromEntries(inputs.map((input) => [input.name, valueOf(input)])));
      close();
      if (typeof then === "function") then();
    } catch (problem) {
      error.textContent = clean(problem.message);
    }
    submit.disabled = false;
  });
  const close = openDialog(title, form);
  (form.querySelector("input:not([readonly]), select") ?? submit).focus();
}

const valueOf = (input) => (input.type === "checkbox" ? input.checked : input.value.trim());

/** The label stands beside its field: around it, WebKit takes what is typed for a part of the name. */
function fieldNode({ label, options = [], ...properties }) {
  if (properties.type === "checkbox") return h("label.check", h("input", properties), label);
  const id = `field-${properties.name}`;
  const choices = options.map(([shown, value]) => h("option", { value }, shown));
  const field = choices.length ? h("select", { id, ...properties }, ...choices) : h("input", { id, autocomplete: "off", ...properties });
  return h("div.field", h("label", { htmlFor: id }, label), field);
}

/** A dialog with a list. `load()` is a promise of rows, `row(each, reload)` gives the nodes of one. Returns `close`. */
export function listDialog(title, { load, row, empty, head = [] }) {
  const list = h("ul.rows");
  const state = h("p.hint", { role: "status" }, "Loading…");
  const reload = async (known) => {
    try {
      const rows = known ?? (await load());
      list.replaceChildren(...rows.map((each) => h("li", {}, ...row(each, reload))));
      state.textContent = rows.length ? "" : empty;
    } catch (error) {
      state.textContent = clean(error.message);
    }
  };
  const close = openDialog(title, ...head, state, list);
  reload();
  return close;
}

/** The first part of a row: some nodes, and a second line in small letters. */
export function details(nodes, ...hints) {
  return h("span", {}, ...nodes, h("span.hint", { dir: "auto" }, clean(hints.filter(Boolean).join(" · "))));
}

/** A button that runs a request. If it fails, the reason stands after it. */
export function actButton(label, action, name = label) {
  const button = h("button", { "aria-label": clean(name) }, label);
  button.onclick = async () => {
    button.disabled = true;
    await action().catch((error) => button.after(h("span.error", { role: "alert" }, clean(error.message))));
    button.disabled = false;
  };
  return button;
}

const KEYS = [
  ["Enter", "send"],
  ["Shift+Enter", "a new line"],
  ["Tab", "complete a name, a room or a command; again: the next one, Esc: back"],
  ["Alt+↑ Alt+↓", "the conversation above or below"],
  ["Ctrl+K or /", "search"],
  ["Page Up, Page Down", "older and newer messages"],
  ["↑ in an empty box", "go to the messages: ↑ and ↓ move, Enter opens the actions of one, End is the newest"],
  ["Esc", "close, and back to the text box"],
  ["?", "this help"],
];

/** The keys, and the commands that can be typed: `{ word, arguments, help }`. */
export function helpDialog(commands) {
  const table = (rows) => h("dl.keys", { tabIndex: 0 }, ...rows.flatMap(([key, does]) => [h("dt", h("kbd", key)), h("dd", does)]));
  openDialog(
    "Help",
    table(KEYS),
    h("p", "/ and ? work outside the text boxes. Lines between ``` and lines that begin with four spaces are code."),
    table(commands.map((each) => [`${each.word} ${each.arguments}`.trim(), each.help])),
  );
}
