// A menu at a button or a place. Arrow keys move in it, Escape or a click elsewhere closes it and restores the focus.

import { el } from "./dom.js";

/**
 * Opens a menu. `items`: `{ label, action, isDanger }`, or null for a line between two groups. `place`: a button, below
 * which it opens, or `{ x, y }`. `origin` gets the focus back.
 */
export function openMenu(title, items, place, origin = document.activeElement) {
  const menu = el("div", { class: "menu", popover: "auto", role: "menu", "aria-label": title });
  const close = (action) => {
    menu.hidePopover();
    action?.();
  };
  menu.append(el("div", { class: "menu-title", role: "presentation", dir: "auto" }, title));
  for (const item of withoutDoubleLines(items)) {
    menu.append(
      item === null
        ? el("hr", { role: "separator" })
        : el(
            "button",
            { type: "button", role: "menuitem", tabIndex: -1, class: item.isDanger ? "danger" : "", onclick: () => close(item.action) },
            item.label,
          ),
    );
  }
  menu.addEventListener("keydown", (event) => keyPressed(event, menu));
  menu.addEventListener("toggle", (event) => {
    if (event.newState !== "closed") return;
    const hadFocus = menu.contains(document.activeElement) || document.activeElement === document.body;
    menu.remove();
    if (hadFocus && origin?.isConnected) origin.focus();
  });
  (origin?.closest?.("dialog") ?? document.body).append(menu);
  menu.showPopover();
  put(menu, place);
  menu.querySelector("button")?.focus();
}

function withoutDoubleLines(items) {
  const kept = items.filter((item) => item !== undefined);
  return kept.filter((item, index) => item !== null || (index > 0 && index + 1 < kept.length && kept[index - 1] !== null));
}

function put(menu, place) {
  const box = menu.getBoundingClientRect();
  const anchor = place instanceof Element ? place.getBoundingClientRect() : null;
  const x = anchor ? anchor.right - box.width : place.x;
  let y = anchor ? anchor.bottom + 4 : place.y;
  if (anchor && y + box.height > innerHeight) y = anchor.top - box.height - 4;
  menu.style.setProperty("--x", `${Math.max(4, Math.min(x, innerWidth - box.width - 4))}px`);
  menu.style.setProperty("--y", `${Math.max(4, Math.min(y, innerHeight - box.height - 4))}px`);
}

function keyPressed(event, menu) {
  const buttons = [...menu.querySelectorAll("button")];
  const index = buttons.indexOf(document.activeElement);
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step) buttons.at((index + step) % buttons.length).focus();
  else if (event.key === "Home") buttons[0].focus();
  else if (event.key === "End") buttons.at(-1).focus();
  else if (event.key === "Tab") menu.hidePopover();
  else return;
  event.preventDefault();
}
