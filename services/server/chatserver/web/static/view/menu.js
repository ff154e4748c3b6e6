// A menu at a button or a place. Arrow keys move in it, Escape or a click elsewhere closes it and restores the focus.

import { h } from "./dom.js";

/**
 * Opens a menu. `items`: `[label, action, isDanger]`, null for a line between groups, false for none. `place`: a button,
 * below which it opens, or `{ x, y }`. `origin` gets the focus back.
 */
export function openMenu(title, items, place, origin) {
  const menu = h("div.menu", { popover: "auto", role: "menu", "aria-label": title });
  menu.append(h("div.menu-title", { dir: "auto" }, title));
  const shown = items.filter((item) => item !== false);
  shown.forEach((item, index) => {
    if (item !== null) menu.append(itemNode(item, menu));
    else if (shown[index + 1] && index > 0 && shown[index - 1]) menu.append(h("hr"));
  });
  menu.addEventListener("keydown", (event) => keyPressed(event, menu));
  menu.addEventListener("toggle", ({ newState }) => {
    if (newState !== "closed") return;
    const hadFocus = menu.contains(document.activeElement) || document.activeElement === document.body;
    menu.remove();
    if (hadFocus) origin.focus();
  });
  (origin.closest("nav, main, aside") ?? document.body).append(menu);
  menu.showPopover();
  put(menu, place);
  menu.querySelector("button").focus();
}

function itemNode([label, action, isDanger], menu) {
  const onclick = () => {
    menu.hidePopover();
    action();
  };
  return h(isDanger ? "button.danger" : "button", { role: "menuitem", tabIndex: -1, onclick }, label);
}

/** At the place, inside the window. */
function put(menu, place) {
  const { width, height } = menu.getBoundingClientRect();
  let { x, y } = place;
  if (place instanceof Element) {
    const { right, top, bottom } = place.getBoundingClientRect();
    x = right - width;
    y = bottom + height + 4 > innerHeight ? top - height - 4 : bottom + 4;
  }
  menu.style.setProperty("left", `${Math.max(4, Math.min(x, innerWidth - width - 4))}px`);
  menu.style.setProperty("top", `${Math.max(4, Math.min(y, innerHeight - height - 4))}px`);
}

function keyPressed(event, menu) {
  const buttons = [...menu.querySelectorAll("button")];
  const index = buttons.indexOf(document.activeElement);
  const target = { ArrowDown: (index + 1) % buttons.length, ArrowUp: index - 1, Home: 0, End: -1 }[event.key];
  if (target !== undefined) buttons.at(target).focus();
  else if (event.key === "Tab") menu.hidePopover();
  else return;
  event.preventDefault();
}
