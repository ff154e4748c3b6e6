// The visible part of the page. Safari on a phone lays the page out behind the keyboard, and scrolls its top away.

/** Keeps the style's `--height` at what is visible above the keyboard. */
export function followKeyboard() {
  const { visualViewport: view, document: { documentElement: root } } = window;
  const place = () => {
    root.style.setProperty("--height", `${Math.round(view.height * view.scale)}px`);
    if (view.scale === 1) scrollTo(0, 0); // otherwise the user looks at an enlarged part
  };
  for (const name of ["resize", "scroll"]) view.addEventListener(name, place);
}
