// Small helpers to build DOM nodes. Text always becomes a text node: nothing here parses markup.

/**
 * An element: h("p.hint", "text") or h("button.icon", { onclick, "aria-label": "Close" }, icon("close")). Properties
 * that the element does not have become attributes; those that are undefined, and children that are null, are left out.
 */
export function h(selector, props = {}, ...children) {
  if (typeof props !== "object" || props === null || props instanceof Node) return h(selector, {}, props, ...children);
  const [tag, ...classes] = selector.split(".");
  const element = document.createElement(tag);
  if (tag === "button") element.type = "button";
  if (classes.length) element.className = classes.join(" ");
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined) continue;
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export const $ = (id) => document.getElementById(id);

/** Replaces the text of a node if it differs, so that it is not read aloud again. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A picture of the sprite in index.html. It is decoration: the button has the name. */
export function icon(name) {
  const [svg, use] = ["svg", "use"].map((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** Runs `action` when a form is sent, in place of the browser. */
export function onSubmit(form, action) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    action();
  });
}

/** Says that a button opens a menu. */
export function opensMenu(button) {
  button.ariaHasPopup = "menu";
  return button;
}

/** Gives a button its picture, name and action. Its name is also its tooltip. */
export function picture(button, name, label, onclick) {
  button.append(icon(name));
  button.title = label;
  button.setAttribute("aria-label", label);
  if (onclick) button.addEventListener("click", () => onclick(button));
  return button;
}

export const iconButton = (name, label, onclick) => picture(h("button.icon"), name, label, onclick);

/** Text for screen readers only. */
export const hiddenText = (text) => h("span.hidden-text", text);

/** `action`, at most once a frame however often it is called. In a hidden page, which has no frames, twice a second. */
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

/** Makes `nodes` the children of `parent`. Those that stay are not touched: they keep focus, scrolling and clicks. */
export function setChildren(parent, nodes) {
  const wanted = new Set(nodes);
  for (const node of [...parent.children]) if (!wanted.has(node)) node.remove();
  let next = parent.firstChild;
  for (const node of nodes) {
    if (node === next) next = next.nextSibling;
    else parent.insertBefore(node, next);
  }
}

/**
 * A list of buttons. The returned function draws items `{ key, state, fill }`: a button stays while its key does, and
 * `fill(button)` gives it its content when the string `state` changes.
 */
export function buttonList(list, onclick) {
  let rows = new Map();
  return (items) => {
    const row = ({ key, state, fill }) => {
      const known = rows.get(key) ?? { node: h("li", h("button", { "data-key": key })) };
      const button = known.node.firstChild;
      button.onclick = () => onclick(key, button);
      if (known.state !== state) fill(button);
      return { node: known.node, state };
    };
    rows = new Map(items.map((item) => [item.key, row(item)]));
    setChildren(list, [...rows.values()].map(({ node }) => node));
  };
}

/** Values that the browser keeps. Without storage they last as long as the page. */
export function kept(storage, name, value) {
  try {
    if (value === undefined) return storage.getItem(name);
    storage.setItem(name, value);
  } catch {
    return null;
  }
}

export const plural = (count, noun) => `${count.toLocaleString()} ${noun}${count === 1 ? "" : "s"}`;

/** Puts a text on the clipboard. Without https the browser has no interface for it, but can copy a selection. */
export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const [box, focused] = [h("textarea.hidden-text", { value: text }), document.activeElement];
  document.body.append(box);
  box.select();
  const isCopied = document.execCommand("copy");
  box.remove();
  focused?.focus();
  if (!isCopied) throw new Error("The browser does not allow copying.");
}
