"""Contrast of what a page shows, by the rules of WCAG 2.2, level AA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Text needs 4.5, large text 3, and so does the edge of a field and the mark of a state (criteria 1.4.3 and 1.4.11).
# Controls that can't be used are exempt, and what lies behind an open dialog is not looked at.
_LOOK = """(() => {
  const number = (text) => Number.parseFloat(text);
  const colour = (text) => {
    const srgb = /^color\\(srgb/.test(text);
    const parts = (text.match(/[-\\d.]+(?:e-?\\d+)?%?/g) ?? []).map((v) => number(v) / (v.endsWith("%") ? 100 : 1));
    const [r = 0, g = 0, b = 0, a = 1] = parts;
    return srgb ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat([1]);
  const light = (c) => {
    const [r, g, b] = c.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05);
  };
  const behind = (el) => {  // the colour on which an element's content lies
    const layers = [];
    for (let e = el; e; e = e.parentElement) {
      const c = colour(getComputedStyle(e).backgroundColor);
      if (c[3] > 0) layers.push(c);
      if (c[3] >= 1) break;
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const faded = (el) => {
    let most = 1;
    for (let e = el; e; e = e.parentElement) most *= number(getComputedStyle(e).opacity);
    return most;
  };
  const name = (el, text) =>
    `${el.tagName.toLowerCase()}.${[...el.classList].join(".")} ${JSON.stringify(text.slice(0, 40))}`;
  const rows = [];
  const note = (el, what, front, back, least) => {
    const f = over([front[0], front[1], front[2], front[3] * faded(el)], back);
    rows.push({ what, ratio: rounded(ratio(f, back)), least });
  };
  const root = document.querySelector("dialog[open]") ?? document.body;
  const seen = (el) =>
    el.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && el.getClientRects().length;
  const rounded = (value) => Math.round(value * 100) / 100;
  for (const el of root.querySelectorAll("*")) {
    if (!seen(el) || el.closest(":disabled") || el.closest("datalist")) continue;
    const style = getComputedStyle(el);
    const size = number(style.fontSize);
    const least = size >= 24 || (size >= 18.66 && number(style.fontWeight) >= 700) ? 3 : 4.5;
    const own = [...el.childNodes].filter((n) => n.nodeType === 3 && el.tagName !== "OPTION");
    const text = own.map((n) => n.data).join("").trim();
    if (text && el instanceof SVGElement) {
      const edge = style.stroke === "none" ? behind(el) : over(colour(style.stroke), behind(el));
      note(el, name(el, text), colour(style.fill), edge, least);
    } else if (text) note(el, name(el, text), colour(style.color), behind(el), least);
    if (!/^(INPUT|SELECT|TEXTAREA|PROGRESS)$/.test(el.tagName) || ["file", "color"].includes(el.type)) continue;
    const around = behind(el.parentElement);
    if (el.tagName === "PROGRESS" || el.type === "range") {
      note(el, name(el, "mark"), colour(style.accentColor), around, 3);
      continue;
    }
    note(el, name(el, "field"), colour(style.color), behind(el), 4.5);
    const edge = over(colour(style.borderTopColor), around);
    const clearest = Math.max(ratio(edge, around), ratio(behind(el), around));
    rows.push({ what: name(el, "edge"), ratio: rounded(clearest), least: 3 });
    const faint = colour(getComputedStyle(el, "::placeholder").color);
    if (el.placeholder) note(el, name(el, `placeholder ${el.placeholder}`), faint, behind(el), 4.5);
  }
  for (const el of root.querySelectorAll("button, a, input, select")) {  // where the keyboard is
    if (!seen(el) || el.disabled || el.type === "file") continue;
    const before = document.activeElement;
    if (before instanceof HTMLElement) before.blur();
    el.focus({ focusVisible: true, preventScroll: true });
    const style = getComputedStyle(el);
    const drawn = style.outlineStyle !== "none" && number(style.outlineWidth) >= 2;
    const around = behind(el.parentElement);
    const found = drawn ? ratio(over(colour(style.outlineColor), around), around) : 0;
    rows.push({ what: name(el, "focus"), ratio: rounded(found), least: 3 });
    el.blur();
    if (before instanceof HTMLElement) before.focus({ preventScroll: true });
  }
  return rows;
})()"""


def contrasts(page: Page) -> list[dict[str, Any]]:
    """Each text, field and mark on the screen: ``what``, its ``ratio``, and the ``least`` that is allowed."""
    found: list[dict[str, Any]] = page.evaluate(_LOOK)
    return found


def too_faint(rows: list[dict[str, Any]]) -> list[str]:
    """What can't be told well enough from its background."""
    return sorted({f"{row['what']}: {row['ratio']} < {row['least']}" for row in rows if row["ratio"] < row["least"]})
