// Keys, and what they do. People may change them; they are kept in this browser.
import { signal } from "@preact/signals";
import * as s from "./state";
import { moved } from "./geometry";
import { t } from "./texts";

export type Action =
  | "acceptAll" | "finish" | "next" | "previous" | "snap" | "snapBack" | "tighten" | "delete" | "copyPrevious" | "hide"
  | "draw" | "zoomTo" | "fit" | "grid" | "undo" | "redo" | "help" | "acceptOne" | "rejectOne";

export const NAMES: Record<Action, string> = {
  acceptAll: t.acceptAll, finish: t.finish, next: t.next, previous: t.previous,
  snap: t.keySnap, snapBack: t.keySnapBack, draw: t.keyDraw, tighten: t.tighten, delete: t.delete,
  acceptOne: t.keyAcceptOne, rejectOne: t.keyRejectOne,
  copyPrevious: t.copyPrevious, hide: t.hide, zoomTo: t.zoomTo, fit: t.fit, grid: t.grid, undo: t.undo, redo: t.redo,
  help: t.help,
};

const DEFAULTS: Record<Action, string> = {
  acceptAll: "Enter", finish: "e", next: "d", previous: "a", snap: "s", snapBack: "w", draw: "q", tighten: "t", delete: "x",
  acceptOne: "f", rejectOne: "r", copyPrevious: "c", hide: "h", zoomTo: "z", fit: "v", grid: "g", undo: "Ctrl+z",
  redo: "Ctrl+Shift+z", help: "?",
};

const STORE = "sppnet-keys";
const read = (): Record<Action, string> => {
  try {
    return { ...DEFAULTS, ...(JSON.parse(localStorage.getItem(STORE) ?? "{}") as Partial<Record<Action, string>>) };
  } catch {
    return DEFAULTS;
  }
};
export const keys = signal(read());

export function setKey(action: Action, key: string): void {
  const now = { ...keys.value };
  for (const other of Object.keys(now) as Action[]) if (now[other] === key) now[other] = "";
  now[action] = key;
  keys.value = now;
  localStorage.setItem(STORE, JSON.stringify(now));
}
export function resetKeys(): void {
  localStorage.removeItem(STORE);
  keys.value = DEFAULTS;
}

export function nameOf(event: KeyboardEvent): string {
  const key = event.key.length === 1 ? (event.shiftKey && /[a-z]/i.test(event.key) ? event.key.toLowerCase() : event.key) : event.key;
  const shift = event.shiftKey && (event.key.length > 1 || /[a-z]/i.test(event.key));
  return `${event.ctrlKey || event.metaKey ? "Ctrl+" : ""}${shift ? "Shift+" : ""}${key}`;
}

/** What the canvas does with a key; it sets these when it is there. */
export const canvas: {
  snap: (by: number) => void; draw: () => void; zoomTo: () => void; fit: () => void; suggestion: () => s.Suggestion | null; pan: (x: number, y: number) => void;
} = { snap: () => undefined, draw: () => undefined, zoomTo: () => undefined, fit: () => undefined, suggestion: () => null, pan: () => undefined };

const ARROWS: Record<string, [number, number]> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function nudge(event: KeyboardEvent): boolean {
  const arrow = ARROWS[event.key];
  const o = s.open.value;
  const box = o?.boxes.find((b) => b.key === s.selected.value);
  if (!arrow || !o) return false;
  if (!box) {
    canvas.pan(-60 * arrow[0], -60 * arrow[1]);
    return true;
  }
  const by = event.shiftKey ? 10 : 1;
  const [dx, dy] = [arrow[0] * by, arrow[1] * by];
  if (event.altKey) s.setRect(box.key, [box.rect[0], box.rect[1], box.rect[2] + dx, box.rect[3] + dy], undefined, "resize");
  else s.setRect(box.key, moved(box.rect, dx, dy, o.width, o.height), undefined, "nudge");
  return true;
}

export function onKey(event: KeyboardEvent): void {
  const target = event.target as HTMLElement;
  if (/^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName) || s.dialog.value || s.conflict.value) return;
  const pressed = nameOf(event);
  const action = (Object.keys(keys.value) as Action[]).find((a) => keys.value[a] === pressed);
  // A focused button is pressed by Enter and Space.
  if (target.tagName === "BUTTON" && (event.key === "Enter" || event.key === " ")) return;
  const done = (): void => event.preventDefault();
  if (action === "undo") return done(), void s.undo();
  if (action === "redo") return done(), void s.redo();
  if (action === "help") return done(), void (s.dialog.value = "help");
  if (s.view.value !== "image") return;
  const key = s.selected.value;
  switch (action) {
    case "acceptAll": return done(), void s.acceptAllAndNext();
    case "finish": return done(), void s.finishAndNext();
    case "next": return done(), void s.go(1);
    case "previous": return done(), void s.go(-1);
    case "snap": return done(), canvas.snap(1);
    case "snapBack": return done(), canvas.snap(-1);
    case "draw": return done(), canvas.draw();
    case "tighten": return done(), void (key !== null && s.tighten(key));
    case "delete": return done(), void (key !== null && s.removeBox(key));
    case "copyPrevious": return done(), void s.copyPrevious();
    case "hide": return done(), void (s.hidden.value = !s.hidden.value);
    case "zoomTo": return done(), canvas.zoomTo();
    case "fit": return done(), canvas.fit();
    case "grid": return done(), s.toGrid();
    case "acceptOne": case "rejectOne": {
      const one = canvas.suggestion();
      if (one) (action === "acceptOne" ? s.accept : s.reject)(one);
      return done();
    }
    default:
  }
  if (event.key === "Delete" || event.key === "Backspace") return done(), void (key !== null && s.removeBox(key));
  if (event.key === "Escape") {
    if (s.naming.value !== null) s.dropUnnamed(s.naming.value);
    else if (key !== null) s.selected.value = null;
    else s.toGrid();
    return done();
  }
  if (nudge(event)) return done();
  const cls = s.classes.value.find((c) => c.key && c.key === event.key);
  if (cls && !event.ctrlKey && !event.metaKey) {
    if (key !== null) s.setClass(key, cls.id);
    else s.activeClass.value = cls.id;
    done();
  }
}
