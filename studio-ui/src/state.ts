// The state of the page, and every change of it.
import { batch, computed, effect, signal } from "@preact/signals";
import {
  api, Conflict, Refused, type BoxRow, type ClassInfo, type ImageDetail, type ImageRow, type ProjectInfo, type Quality, type Status,
  type Suggested, type SuggestionRow, type Windows,
} from "./api";
import { candidates, iou, normal, usualBox, type Rect } from "./geometry";
import { t } from "./texts";

export interface Box { key: number; rect: Rect; cls: number; origin: string }
export interface Suggestion { rect: Rect; cls: number; confidence: number }
export interface Open {
  id: string; name: string; width: number; height: number; version: number; done: boolean;
  boxes: Box[]; suggestions: Suggestion[] | null; rejected: Box[]; windows: Windows | null;
}
export type View = "grid" | "image";
export type Dialog = "" | "compare" | "help" | "quality" | "train" | "try" | "export" | "more" | "class";
export type Filter = "all" | "todo" | "suggested" | "untouched" | "done";
export type Sort = keyof typeof t.sorts;

const author = crypto.randomUUID();
let nextKey = 1;

export const project = signal<ProjectInfo | null>(null);
export const status = signal<Status | null>(null);
export const rows = signal<ImageRow[]>([]);
export const open = signal<Open | null>(null);
export const view = signal<View>("grid");
export const dialog = signal<Dialog>("");
export const selected = signal<number | null>(null); // key of a box
export const activeClass = signal<number | null>(null);
export const naming = signal<number | null>(null); // key of a box that has no class yet
export const hidden = signal(false);
export const connection = signal<"ok" | "lost" | "refused">("ok");
export const waiting = signal(0); // changes that the server does not have yet
export const toast = signal<{ text: string; action?: { label: string; run: () => void } } | null>(null);
export interface Conflicting { id: string; version: number; done: boolean; boxes: BoxRow[]; rejected: BoxRow[]; mine?: Pending }
export const conflict = signal<Conflicting | null>(null); // the one that is asked about
const conflicts: Conflicting[] = []; // others that wait
export const adding = signal<{ done: number; total: number } | null>(null); // files that come to the project
export const filter = signal<Filter>("all");
export const filterClass = signal<number | null>(null);
export const filterFolder = signal("");
export const search = signal("");
export const sort = signal<Sort>("helpful");
export const minConfidence = signal(0.5);

export const classes = computed<ClassInfo[]>(() => project.value?.classes ?? []);
export const classOf = (id: number): ClassInfo | undefined => classes.value.find((c) => c.id === id);
export const doneCount = computed(() => rows.value.filter((r) => r.done).length);

// Colours that colour-blind people tell apart (Okabe and Ito, and lighter and darker ones of them).
const COLOURS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999", "#8dd3c7", "#b15928"];
export const colourOf = (id: number): string => {
  const chosen = classOf(id)?.color;
  return chosen ? chosen : (COLOURS[id % COLOURS.length] ?? "#e69f00");
};

const folderOf = (name: string): string => (name.includes("/") ? name.slice(0, name.lastIndexOf("/")) : "");
export const folders = computed(() => [...new Set(rows.value.map((r) => folderOf(r.name)))].sort());

export const shown = computed<ImageRow[]>(() => {
  const text = search.value.toLowerCase();
  const cls = filterClass.value;
  const list = rows.value.filter((r) => {
    if (filter.value === "todo" && r.done) return false;
    if (filter.value === "done" && !r.done) return false;
    if (filter.value === "untouched" && (r.done || r.classes.length || r.suggested?.classes.length)) return false;
    if (filter.value === "suggested" && (r.done || !r.suggested?.classes.length)) return false;
    if (cls !== null && !r.classes.includes(cls) && !(!r.done && r.suggested?.classes.includes(cls))) return false;
    if (filterFolder.value && folderOf(r.name) !== filterFolder.value) return false;
    return !text || r.name.toLowerCase().includes(text);
  });
  const help = (r: ImageRow): number => (r.done ? -2 : r.suggested ? r.suggested.uncertainty : -1);
  const sure = (r: ImageRow): number => (r.done ? -1 : (r.suggested?.best ?? 0));
  // The rows are in the order of their names, and sorting keeps the order of equals.
  if (sort.value === "helpful") list.sort((a, b) => help(b) - help(a));
  else if (sort.value === "confidence") list.sort((a, b) => sure(b) - sure(a));
  else if (sort.value === "date") list.sort((a, b) => b.modified - a.modified);
  else if (sort.value === "class") list.sort((a, b) => firstClass(a) - firstClass(b));
  else if (sort.value === "untouched") list.sort((a, b) => Number(a.done) - Number(b.done));
  return list;
});
/** Place of the first class of an image in the list of classes; images without one are last. */
const firstClass = (r: ImageRow): number => {
  const mine = new Set(r.done || r.classes.length ? r.classes : (r.suggested?.classes ?? []));
  const place = classes.value.findIndex((c) => mine.has(c.id));
  return place < 0 ? Infinity : place;
};
const collator = new Intl.Collator(undefined, { numeric: true });

// --- saving: the newest labels of each image are sent one after the other, again and again until the server has them --

interface Pending { boxes: Box[]; done: boolean; rejected: Box[] }
const pending = new Map<string, Pending>();
const versions = new Map<string, number>();
let sending = false;
// Counts what happens to an image here, and the answers to that: what was asked of the server before may be older.
const changes = new Map<string, number>();
const countChange = (id: string): void => void changes.set(id, (changes.get(id) ?? 0) + 1);

const toRow = (b: Box): BoxRow => [...b.rect, b.cls, b.origin];
const fromRow = (r: BoxRow): Box => ({ key: nextKey++, rect: [r[0], r[1], r[2], r[3]], cls: r[4], origin: r[5] });

function save(id: string, labels: Pending): void {
  pending.set(id, labels);
  countChange(id);
  waiting.value = pending.size;
  void send();
}

async function send(): Promise<void> {
  if (sending) return;
  sending = true;
  try {
    for (;;) {
      const first = pending.entries().next();
      if (first.done) break;
      const [id, labels] = first.value;
      try {
        const answer = await api.putLabels(id, {
          version: versions.get(id) ?? 0, done: labels.done, author,
          boxes: labels.boxes.filter((b) => b.cls >= 0).map(toRow), rejected: labels.rejected.map(toRow),
        });
        versions.set(id, answer.version);
        countChange(id);
        if (open.value?.id === id) open.value = { ...open.value, version: answer.version };
        if (pending.get(id) === labels) pending.delete(id);
        connection.value = "ok";
      } catch (error) {
        if (error instanceof Conflict) {
          const asked = { id, ...error.present, mine: pending.get(id) ?? labels };
          pending.delete(id);
          if (conflict.value) conflicts.push(asked);
          else conflict.value = asked;
        } else if (error instanceof Refused && error.status === 401) {
          connection.value = "refused";
          return;
        } else if (error instanceof Refused && error.status < 500) {
          pending.delete(id);
          toast.value = { text: error.message };
          await reopen(id);
        } else {
          connection.value = "lost";
          setTimeout(() => void send(), 1000);
          return;
        }
      }
      waiting.value = pending.size;
    }
  } finally {
    sending = false;
    waiting.value = pending.size;
  }
}

export function resolveConflict(mine: boolean): void {
  const now = conflict.value;
  if (!now) return;
  conflict.value = conflicts.shift() ?? null;
  versions.set(now.id, now.version);
  countChange(now.id);
  const theirs: Pending = { done: now.done, boxes: now.boxes.map(fromRow), rejected: now.rejected.map(fromRow) };
  const chosen = mine && now.mine ? now.mine : theirs;
  if (open.value?.id === now.id) {
    open.value = { ...open.value, ...chosen, boxes: withUnnamed(now.id, chosen.boxes), version: now.version };
  }
  patchRow(now.id, { done: chosen.done, classes: classesOf(chosen.boxes) });
  if (chosen !== theirs) save(now.id, chosen);
}

// --- undo: whole states of an image before and after; one step may hold several images -------------------------------

interface Step { id: string; before: Pending; after: Pending; kind: string; at: number }
const TOGETHER_MS = 1000; // changes of one kind that follow each other this fast are one step of undo
const undoSteps = signal<Step[]>([]);
const redoSteps = signal<Step[]>([]);
export const canUndo = computed(() => undoSteps.value.length > 0);
export const canRedo = computed(() => redoSteps.value.length > 0);

const stateOf = (o: Open): Pending => ({ boxes: o.boxes, done: o.done, rejected: o.rejected });

/** Change the open image: shown at once, undoable, saved. Changes of the same kind in quick succession are one step. */
export function change(edit: (o: Open) => Partial<Open>, kind = ""): void {
  const before = open.value;
  if (!before) return;
  const after = { ...before, ...edit(before) };
  countChange(before.id);
  batch(() => {
    open.value = after;
    const at = performance.now();
    const last = undoSteps.value[undoSteps.value.length - 1];
    const more = kind !== "" && kind !== UNNAMED && last?.kind === kind && last.id === before.id && at - last.at < TOGETHER_MS;
    const from = more ? last.before : stateOf(before);
    const earlier = more ? undoSteps.value.slice(0, -1) : undoSteps.value.slice(-499);
    undoSteps.value = [...earlier, { id: before.id, before: from, after: stateOf(after), kind, at }];
    redoSteps.value = [];
    patchRow(after.id, { done: after.done, classes: classesOf(after.boxes) });
  });
  // A box without a class waits for its name; whatever else was changed does not wait for it.
  if (kind !== UNNAMED) save(after.id, stateOf(after));
}
const UNNAMED = "unnamed";
const classesOf = (boxes: readonly Box[]): number[] => boxes.filter((b) => b.cls >= 0).map((b) => b.cls);

/** Take back a box that got no name, as if it had never been there. */
export function dropUnnamed(key: number): void {
  const last = undoSteps.value[undoSteps.value.length - 1];
  const now = open.value;
  if (now && last?.id === now.id && last.kind === UNNAMED && last.after.boxes.some((b) => b.key === key)) {
    batch(() => {
      undoSteps.value = undoSteps.value.slice(0, -1);
      // Not all of last.before: the rest may be newer, from the server
      const done = now.done || last.before.done;
      open.value = { ...now, boxes: now.boxes.filter((b) => b.key !== key), done };
      if (selected.value === key) selected.value = null;
      naming.value = null;
      patchRow(now.id, { done, classes: classesOf(now.boxes) });
    });
  } else removeBox(key);
}

/** Whether an image is as a step left it; the server rounds a little. */
const isAs = (now: Pending, then: Pending): boolean => {
  const [a, b] = [now, then].map((p) => p.boxes.filter((box) => box.cls >= 0)) as [Box[], Box[]];
  return now.done === then.done && a.length === b.length && a.every((box, i) => {
    const other = b[i];
    return other?.cls === box.cls && box.rect.every((v, k) => Math.abs(v - (other.rect[k] ?? 0)) < 0.02);
  });
};

/** What became of the boxes of a class: in the open image, in what waits to be saved, and in all that can be undone. */
function replaceClass(id: number, into: number | undefined): void {
  const boxes = (list: Box[]): Box[] =>
    list.flatMap((b) => (b.cls !== id ? [b] : into === undefined ? [] : [{ ...b, cls: into }]));
  const state = (p: Pending): Pending => ({ ...p, boxes: boxes(p.boxes), rejected: boxes(p.rejected) });
  for (const steps of [undoSteps, redoSteps]) {
    steps.value = steps.value.map((one) => ({ ...one, before: state(one.before), after: state(one.after) }));
  }
  for (const [image, labels] of pending) pending.set(image, state(labels));
  // Not only when the image is loaded anew: an undo that comes before that would find another state than it left
  if (open.value) open.value = { ...open.value, ...state(stateOf(open.value)) };
}

async function step(from: typeof undoSteps, to: typeof undoSteps, which: "before" | "after"): Promise<void> {
  await removing; // else boxes of a class that is going would come back
  const last = from.value[from.value.length - 1];
  if (!last) return;
  from.value = from.value.slice(0, -1);
  to.value = [...to.value, { ...last, kind: "" }];
  if (open.value?.id !== last.id) await openImage(last.id);
  const now = open.value;
  if (!now || now.id !== last.id) return;
  const state = last[which];
  if (!isAs(stateOf(now), last[which === "before" ? "after" : "before"])) { // somebody's work would be lost
    for (const steps of [undoSteps, redoSteps]) steps.value = steps.value.filter((one) => one.id !== now.id);
    toast.value = { text: t.changedSince };
    return;
  }
  open.value = { ...now, ...state };
  naming.value = state.boxes.find((b) => b.cls < 0)?.key ?? null;
  patchRow(now.id, { done: state.done, classes: classesOf(state.boxes) });
  save(now.id, state);
}
export const undo = (): Promise<void> => step(undoSteps, redoSteps, "before");
export const redo = (): Promise<void> => step(redoSteps, undoSteps, "after");

function patchRow(id: string, part: Partial<ImageRow>): void {
  rows.value = rows.value.map((r) => (r.id === id ? { ...r, ...part } : r));
}

// --- images ----------------------------------------------------------------------------------------------------------

export async function loadAll(): Promise<void> {
  const before = new Map(changes);
  const rowsBefore = new Map(rows.value.map((r) => [r.id, r.suggested]));
  const [statusBefore, classesBefore] = [status.value, project.value?.classes];
  const [info, list] = await Promise.all([api.project(), api.images()]);
  // What came meanwhile is newer than this answer
  const known = new Map(rows.value.map((r) => [r.id, r]));
  const isOld = (r: ImageRow): boolean =>
    changes.get(r.id) !== before.get(r.id) && r.version <= (versions.get(r.id) ?? -1);
  const classList = project.value && project.value.classes !== classesBefore ? project.value.classes : info.classes;
  batch(() => {
    project.value = { ...info, classes: classList };
    if (status.value === statusBefore) status.value = info.status;
    rows.value = list.images.sort((a, b) => collator.compare(a.name, b.name)).map((r) => {
      const here = known.get(r.id);
      const suggested = here && here.suggested !== rowsBefore.get(r.id) ? here.suggested : r.suggested;
      const mine = pending.get(r.id);
      if (mine) return { ...r, suggested, done: mine.done, classes: classesOf(mine.boxes) };
      return here && isOld(r) ? { ...r, suggested, done: here.done, classes: here.classes } : { ...r, suggested };
    });
    for (const r of list.images) if (!pending.has(r.id) && !isOld(r)) versions.set(r.id, r.version);
    if (activeClass.value === null || !classList.some((c) => c.id === activeClass.value)) {
      activeClass.value = classList[0]?.id ?? null;
    }
  });
}

let ticket = 0;

const unreadable = new Set<string>(); // images that could not be opened: nobody is led to them

export async function openImage(id: string): Promise<void> {
  const mine = ++ticket;
  let detail: ImageDetail;
  let before: number | undefined;
  try {
    do { // until nothing was changed meanwhile; what waits to be saved is newer than any answer
      before = changes.get(id);
      detail = await api.image(id);
    } while (mine === ticket && !pending.has(id) && changes.get(id) !== before);
  } catch (error) {
    toast.value = { text: error instanceof Error ? error.message : t.unreadable };
    if (error instanceof Refused) unreadable.add(id);
    return;
  }
  unreadable.delete(id);
  if (mine !== ticket) return;
  const local = pending.get(id);
  if (!local) versions.set(id, detail.version);
  batch(() => {
    const boxes = withUnnamed(id, local ? local.boxes : detail.boxes.map(fromRow));
    const done = local ? local.done : detail.done;
    open.value = {
      ...detail,
      boxes,
      done,
      rejected: local ? local.rejected : detail.rejected.map(fromRow),
      suggestions: parse(detail.suggestions),
      windows: null,
    };
    patchRow(id, { done, classes: classesOf(boxes) });
    if (!boxes.some((b) => b.key === selected.value)) selected.value = null;
    if (!boxes.some((b) => b.key === naming.value)) naming.value = null;
    lookAt.value = null;
    view.value = "image";
  });
  location.hash = id;
  void fetchWindows(id);
  prefetch();
}

/** Boxes of an image, with those of the open one that wait for their name: nobody takes away a box that is being named. */
const withUnnamed = (id: string, boxes: Box[]): Box[] => {
  const waiting = open.value?.id === id ? open.value.boxes.filter((b) => b.cls < 0) : [];
  return [...boxes, ...waiting.filter((b) => !boxes.some((other) => other.key === b.key))];
};

/** A place in the open image that somebody should look at. */
export const lookAt = signal<Rect | null>(null);

/** Open an image and show a place in it: the box there is selected. */
export async function openAt(id: string, rect: Rect): Promise<void> {
  await openImage(id);
  const o = open.value;
  if (o?.id !== id) return;
  const there = o.boxes.find((b) => iou(b.rect, rect) > 0.5);
  batch(() => {
    lookAt.value = rect;
    selected.value = there?.key ?? null;
  });
}

/** Show an image as the server has it. */
async function reopen(id: string): Promise<void> {
  if (open.value?.id === id && view.value === "image") return openImage(id);
  const now = await api.image(id).catch(() => null);
  if (!now || pending.has(id)) return undefined;
  versions.set(id, now.version);
  patchRow(id, { done: now.done, classes: now.boxes.map((b) => b[4]) });
  return undefined;
}

/** Have the next image ready before it is asked for. */
function prefetch(): void {
  const next = neighbour(1, false);
  if (!next) return;
  new Image().src = api.view(next.id);
}

async function fetchWindows(id: string): Promise<void> {
  try {
    const { windows } = await api.windows(id);
    if (open.value?.id === id && windows) open.value = { ...open.value, windows };
    // The stream tells when they are there; this is for when it is cut.
    else if (open.value?.id === id) setTimeout(() => !open.value?.windows && void fetchWindows(id), 1000);
  } catch {
    // Snapping waits; drawing works.
  }
}

const parse = (list: SuggestionRow[] | null): Suggestion[] | null =>
  list?.map((s) => ({ rect: [s[0], s[1], s[2], s[3]], cls: s[4], confidence: s[5] })) ?? null;

/** Suggestions of the open image that are neither accepted nor rejected, sure enough, and of a class that exists. */
export const visible = computed<Suggestion[]>(() => {
  const o = open.value;
  if (!o?.suggestions || o.done) return [];
  return o.suggestions.filter(
    (s) => s.confidence >= minConfidence.value && classOf(s.cls) &&
      ![...o.boxes, ...o.rejected].some((b) => iou(b.rect, s.rect) > 0.5 && (b.cls === s.cls || b.cls < 0)),
  );
});

export function neighbour(by: 1 | -1, todo: boolean): ImageRow | null {
  const list = shown.value;
  const here = list.findIndex((r) => r.id === open.value?.id);
  if (todo) {
    const after = [...list.slice(here + 1), ...list.slice(0, Math.max(here, 0))];
    return after.find((r) => !r.done && !unreadable.has(r.id)) ?? null;
  }
  for (let place = here + by; place in list; place += by) {
    const row = list[place];
    if (row && !unreadable.has(row.id)) return row;
  }
  return null;
}

/** Open a neighbour, and the one behind it where it can't be read. Returns whether there is one. */
async function goOn(by: 1 | -1, todo: boolean): Promise<boolean> {
  for (let next = neighbour(by, todo); next; next = neighbour(by, todo)) {
    await openImage(next.id);
    if (!unreadable.has(next.id)) return true;
  }
  return false;
}

export const go = async (by: 1 | -1): Promise<void> => void (await goOn(by, false));

export function toGrid(): void {
  ticket += 1; // an image that is on its way isn't opened any more
  view.value = "grid";
  history.replaceState(null, "", location.pathname);
}

// --- what hands do ---------------------------------------------------------------------------------------------------

export function addBox(rect: Rect, origin: string, cls = activeClass.value): void {
  const o = open.value;
  if (!o) return;
  const box: Box = { key: nextKey++, rect: normal(rect, o.width, o.height), cls: cls ?? -1, origin };
  batch(() => {
    change((now) => ({ boxes: [...now.boxes, box], done: false }), box.cls < 0 ? UNNAMED : "");
    selected.value = box.key;
    if (box.cls < 0) naming.value = box.key;
  });
}

export function setRect(key: number, rect: Rect, origin?: string, kind = ""): void {
  change((o) => ({
    boxes: o.boxes.map((b) => {
      if (b.key !== key) return b;
      const was = b.origin === "accepted" || b.origin === "corrected" ? "corrected" : (origin ?? "drawn");
      return { ...b, rect: normal(rect, o.width, o.height), origin: was };
    }),
  }), kind && `${kind} ${key}`);
}

export function setClass(key: number, cls: number): void {
  batch(() => {
    change((o) => ({
      boxes: o.boxes.map((b) => (b.key === key ? { ...b, cls, origin: b.origin === "accepted" ? "corrected" : b.origin } : b)),
    }));
    activeClass.value = cls;
    if (naming.value === key) naming.value = null;
  });
}

export function removeBox(key: number): void {
  batch(() => {
    change((o) => {
      const gone = o.boxes.find((b) => b.key === key);
      const wrong = gone && gone.origin === "accepted" ? [...o.rejected, gone] : o.rejected;
      return { boxes: o.boxes.filter((b) => b.key !== key), rejected: wrong };
    });
    if (selected.value === key) selected.value = null;
    if (naming.value === key) naming.value = null;
  });
}

const asBox = (s: Suggestion, origin: string): Box => ({ key: nextKey++, rect: s.rect, cls: s.cls, origin });

export function accept(s: Suggestion): void {
  const box = asBox(s, "accepted");
  change((o) => ({ boxes: [...o.boxes, box] }));
  selected.value = box.key;
}

export function reject(s: Suggestion): void {
  change((o) => ({ rejected: [...o.rejected, asBox(s, "accepted")] }));
}

/** Accept every visible suggestion, mark the image as done, and open the next that is not. */
export async function acceptAllAndNext(): Promise<void> {
  if (justChanged()) return;
  const boxes = visible.value.map((s) => asBox(s, "accepted"));
  change((o) => ({ boxes: [...o.boxes.filter((b) => b.cls >= 0), ...boxes], done: true }));
  noteSizes(open.value?.boxes ?? []);
  if (!(await goOn(1, true))) toGrid();
}

/** Mark the image as done with the boxes it has; suggestions that are left were wrong. */
export async function finishAndNext(): Promise<void> {
  if (justChanged()) return;
  const wrong = visible.value.map((s) => asBox(s, "accepted"));
  change((o) => ({ boxes: o.boxes.filter((b) => b.cls >= 0), rejected: [...o.rejected, ...wrong], done: true }));
  noteSizes(open.value?.boxes ?? []);
  if (!(await goOn(1, true))) toGrid();
}

export const reopenImage = (): void => change(() => ({ done: false }));

export async function copyPrevious(): Promise<void> {
  const before = neighbour(-1, false);
  const o = open.value;
  if (!before || !o) return;
  const detail = await api.image(before.id);
  const boxes = detail.boxes.map((r) => {
    const b = fromRow(r);
    return { ...b, rect: normal(b.rect, o.width, o.height), origin: "copied" };
  }).filter((b) => b.rect[2] - b.rect[0] >= 1 && b.rect[3] - b.rect[1] >= 1);
  if (boxes.length) change((now) => ({ boxes: [...now.boxes, ...boxes] }));
}

export async function tighten(key: number): Promise<void> {
  const o = open.value;
  const box = o?.boxes.find((b) => b.key === key);
  if (!o || !box) return;
  try {
    const { box: better } = await api.tighten(o.id, box.rect, box.cls);
    if (better && open.value?.id === o.id) setRect(key, better, "tightened");
  } catch (error) {
    if (error instanceof Error) toast.value = { text: error.message };
  }
}

// Sizes of the boxes that were made last, by class: the next one is likely about as large.
const sizes = new Map<number, [number, number][]>();
const SIZES_KEPT = 20;
const USUAL_PLACE = 2; // among the boxes that a click may mean
function noteSizes(boxes: readonly Box[]): void {
  for (const b of boxes) {
    if (b.cls < 0) continue;
    const known = sizes.get(b.cls) ?? [];
    sizes.set(b.cls, [...known, [b.rect[2] - b.rect[0], b.rect[3] - b.rect[1]] as [number, number]].slice(-SIZES_KEPT));
  }
}

/** A new box around a point, of the usual size of the class; for hands that don't hold a mouse. */
export function drawAt(x: number, y: number): void {
  const o = open.value;
  if (!o) return;
  const side = Math.min(o.width, o.height) / 4;
  const rect = usualBox(knownSizes(o), x, y, o.width, o.height)
    ?? normal([x - side / 2, y - side / 2, x + side / 2, y + side / 2], o.width, o.height);
  addBox(rect, "drawn");
}

function knownSizes(o: Open): [number, number][] {
  const cls = activeClass.value ?? -1;
  const here = o.boxes.filter((b) => b.cls === cls).map((b): [number, number] => [b.rect[2] - b.rect[0], b.rect[3] - b.rect[1]]);
  return [...here, ...(sizes.get(cls) ?? [])].slice(0, SIZES_KEPT);
}

/** Boxes that a click at this point may mean, best first. */
export function snapsAt(x: number, y: number): Rect[] {
  const o = open.value;
  if (!o?.windows) return [];
  const known = knownSizes(o);
  const list = candidates(o.windows.boxes, o.windows.scores, x, y, known);
  const usual = usualBox(known, x, y, o.width, o.height);
  // After the best windows, a box of the usual size: things that lie close together often have no window of their own.
  return usual && list.slice(0, USUAL_PLACE).every((r) => iou(r, usual) < 0.85)
    ? [...list.slice(0, USUAL_PLACE), usual, ...list.slice(USUAL_PLACE)] : list;
}

// --- classes ---------------------------------------------------------------------------------------------------------

export async function tell<T>(work: Promise<T>): Promise<T | null> {
  try {
    return await work;
  } catch (error) {
    toast.value = { text: error instanceof Error ? error.message : String(error) };
    return null;
  }
}

export async function addClass(name: string): Promise<number | null> {
  const same = classes.value.find((c) => c.name.toLowerCase() === name.trim().toLowerCase());
  if (same) return same.id;
  const used = new Set(classes.value.map((c) => c.key));
  const key = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "0"].find((k) => !used.has(k)) ?? "";
  const made = await tell(api.addClass(name, "", key));
  if (!made) return null;
  setClasses([...classes.value.filter((c) => c.id !== made.id), made]);
  activeClass.value = made.id;
  return made.id;
}

export async function editClass(id: number, part: Partial<Omit<ClassInfo, "id">>): Promise<boolean> {
  const made = await tell(api.editClass(id, part));
  if (made) setClasses(classes.value.map((c) => (c.id === id ? made : c)));
  return made !== null;
}

let removing: Promise<void> = Promise.resolve();
export async function removeClass(id: number, into?: number): Promise<void> {
  removing = tell(api.removeClass(id, into)).then((gone) => {
    if (!gone) return undefined;
    replaceClass(id, into);
    return reload();
  }).catch(() => undefined); // the server is gone: the page loads anew when it is back
  await removing;
}

function setClasses(list: ClassInfo[]): void {
  if (project.value) project.value = { ...project.value, classes: list };
}

export async function reload(): Promise<void> {
  const here = open.value?.id;
  await loadAll();
  if (here && here === open.value?.id && view.value === "image") await openImage(here);
}

// --- events of the server --------------------------------------------------------------------------------------------

interface Event {
  type: string; run?: string; status?: Status; image?: string; author?: string; version?: number; done?: boolean;
  boxes?: BoxRow[]; rejected?: BoxRow[]; classes?: ClassInfo[]; message?: string; overview?: Record<string, Suggested>; suggestions?: SuggestionRow[];
}

export function listen(): void {
  let run = "";
  let wasLost = false;
  const source = new EventSource("/api/events");
  source.onerror = () => {
    wasLost = true;
    if (connection.value === "ok") connection.value = "lost";
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 1500);
  };
  source.onmessage = (message: MessageEvent<string>) => {
    const event = JSON.parse(message.data) as Event;
    if (event.type === "hello") {
      const restarted = run !== "" && run !== event.run;
      run = event.run ?? "";
      connection.value = "ok";
      if (event.status) status.value = event.status;
      if (wasLost) {
        wasLost = false;
        void send().then(loadAll).then(() => (toast.value = { text: restarted ? t.restarted : t.back }));
      }
    } else handle(event);
  };
}

function handle(event: Event): void {
  if (event.type === "status" && event.status) status.value = event.status;
  else if (event.type === "classes" && event.classes) setClasses(event.classes);
  else if (event.type === "reload") void reload();
  else if (event.type === "quality") void loadQuality();
  else if (event.type === "problem" && event.message) toast.value = { text: event.message };
  else if (event.type === "overview" && event.overview) {
    const news = event.overview;
    rows.value = rows.value.map((r) => (r.id in news ? { ...r, suggested: news[r.id] ?? null } : r));
  } else if (event.type === "windows" && event.image && open.value?.id === event.image) {
    void fetchWindows(event.image);
  } else if (event.type === "suggestions" && event.image && event.suggestions && open.value?.id === event.image) {
    showSuggestions(event.suggestions);
  } else if (event.type === "labels" && event.image && event.author !== author && event.boxes) {
    patchRow(event.image, { done: event.done ?? false, classes: event.boxes.map((b) => b[4]) });
    if (pending.has(event.image)) return;
    versions.set(event.image, event.version ?? 0);
    countChange(event.image);
    const o = open.value;
    if (o?.id === event.image) {
      open.value = { ...o, version: event.version ?? 0, done: event.done ?? false, boxes: withUnnamed(o.id, event.boxes.map(fromRow)), rejected: (event.rejected ?? []).map(fromRow) };
    }
  }
}

/** How good the suggestions are; null until somebody asked. */
export const quality = signal<Quality | null>(null);
export async function loadQuality(): Promise<void> {
  const found = await tell(api.quality());
  if (found) quality.value = found;
}

function showSuggestions(list: SuggestionRow[]): void {
  const o = open.value;
  if (!o) return;
  const before = visible.value;
  open.value = { ...o, suggestions: parse(list) };
  if (!sameBoxes(before, visible.value)) changedAt = performance.now();
}

const sameBoxes = (a: readonly Suggestion[], b: readonly Suggestion[]): boolean =>
  a.length === b.length && a.every((x) => b.some((y) => x.cls === y.cls && iou(x.rect, y.rect) > 0.7));
let changedAt = -Infinity;
const SEEN_AFTER_MS = 350;

/** Whether the suggestions changed under the person's hands a moment ago: nobody accepts what they did not see. */
function justChanged(): boolean {
  if (performance.now() - changedAt > SEEN_AFTER_MS) return false;
  toast.value = { text: t.justChanged };
  return true;
}

// A page that is closed with unsaved work asks first.
effect(() => {
  window.onbeforeunload = waiting.value || adding.value ? () => "" : null;
});
