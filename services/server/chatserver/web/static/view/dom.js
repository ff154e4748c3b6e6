// Small helpers to build DOM nodes. Text always becomes a text node: nothing here parses markup.

/**
 * An element. Properties: `class`, event handlers `onclick`, attributes with a hyphen or of the list below, and
 * everything else as a property of the element. Children: nodes, strings, or null (left out).
 */
export function el(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (name === "class") element.className = value;
    else if (name.includes("-") || ATTRIBUTES.has(name)) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const ATTRIBUTES = new Set(["role", "popover", "for", "form", "list"]);

export const $ = (id) => document.getElementById(id);

/** A picture of index.html's sprite. It is decoration: the button has the name. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** A button with a picture only. Its name is also its tooltip. */
export function iconButton(name, label, onclick, props = {}) {
  return el("button", { type: "button", class: "icon", title: label, "aria-label": label, onclick, ...props }, icon(name));
}

/** Gives a button of index.html its picture, name and action. */
export function wire(id, name, label, onclick) {
  const button = $(id);
  button.append(icon(name));
  button.title = label;
  button.setAttribute("aria-label", label);
  if (onclick) button.addEventListener("click", onclick);
  return button;
}

/** Text for screen readers only. */
export const hiddenText = (text) => el("span", { class: "hidden-text" }, text);

/** Runs `action` at most once a frame, however often the returned function is called. In a hidden page, twice a second. */
export function oncePerFrame(action) {
  let isPlanned = false;
  const run = () => {
    isPlanned = false;
    action();
  };
  return () => {
    if (isPlanned) return;
    isPlanned = true;
    if (document.hidden) setTimeout(run, 500);
    else requestAnimationFrame(run);
  };
}

export const plural = (count, noun) => `${count.toLocaleString()} ${noun}${count === 1 ? "" : "s"}`;
