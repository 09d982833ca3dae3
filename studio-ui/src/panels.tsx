// What stands beside the image and beside the grid.
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { height, width } from "./geometry";
import * as s from "./state";
import { t } from "./texts";

export function Classes() {
  const [text, setText] = useState("");
  const counts = new Map<number, number>();
  for (const r of s.rows.value) for (const c of r.classes) counts.set(c, (counts.get(c) ?? 0) + 1);
  const add = async (): Promise<void> => {
    if (text.trim() && (await s.addClass(text)) !== null) setText("");
  };
  return (
    <section class="panel">
      <h2>{t.classes}</h2>
      {!s.classes.value.length && <p class="hint">{t.firstClass}</p>}
      <ul class="classes">
        {s.classes.value.map((c) => (
          <li key={c.id}>
            <button class={s.activeClass.value === c.id ? "row on" : "row"} aria-pressed={s.activeClass.value === c.id}
              onClick={() => {
                s.activeClass.value = c.id;
                if (s.selected.value !== null && s.view.value === "image") s.setClass(s.selected.value, c.id);
              }}>
              <i style={{ background: s.colourOf(c.id) }} />
              <span class="grow">{c.name}</span>
              <span class="count">{counts.get(c.id) ?? 0}</span>
              {c.key && <kbd>{c.key}</kbd>}
            </button>
            <button class="icon" aria-label={`${t.rename}: ${c.name}`} title={t.rename}
              onClick={() => { editing.id = c.id; s.dialog.value = "class"; }}>⋯</button>
          </li>
        ))}
      </ul>
      <form class="add" onSubmit={(e) => { e.preventDefault(); void add(); }}>
        <input value={text} placeholder={t.newClass} aria-label={t.newClass} maxLength={200} onInput={(e) => setText(e.currentTarget.value)} />
        <button type="submit" aria-label={t.newClass}>+</button>
      </form>
    </section>
  );
}
export const editing = { id: -1 };

export function Filters() {
  const entries: [s.Filter, string][] = [
    ["all", t.all], ["todo", t.todo], ["untouched", t.untouched], ["suggested", t.suggested], ["done", t.done],
  ];
  return (
    <section class="panel filters">
      <div class="segments" role="group" aria-label={t.filter}>
        {entries.map(([key, name]) => (
          <button key={key} aria-pressed={s.filter.value === key} onClick={() => (s.filter.value = key)}>{name}</button>
        ))}
      </div>
      <label>{t.sort}
        <select value={s.sort.value} onChange={(e) => (s.sort.value = e.currentTarget.value as s.Sort)}>
          {Object.entries(t.sorts).map(([key, name]) => <option key={key} value={key}>{name}</option>)}
        </select>
      </label>
      <label>{t.filterClass}
        <select value={s.filterClass.value ?? ""} onChange={(e) => (s.filterClass.value = e.currentTarget.value === "" ? null : Number(e.currentTarget.value))}>
          <option value="">{t.anyClass}</option>
          {s.classes.value.map((c) => <option key={c.id} value={c.id}>{c.name}</option>)}
        </select>
      </label>
      {s.folders.value.length > 1 && (
        <label>{t.folder}
          <select value={s.filterFolder.value} onChange={(e) => (s.filterFolder.value = e.currentTarget.value)}>
            <option value="">{t.anyFolder}</option>
            {s.folders.value.filter(Boolean).map((f) => <option key={f} value={f}>{f}</option>)}
          </select>
        </label>
      )}
      <label>{t.search}
        <input type="search" value={s.search.value} onInput={(e) => (s.search.value = e.currentTarget.value)} />
      </label>
    </section>
  );
}

export function Boxes() {
  const o = s.open.value;
  const held = useRef<{ el: HTMLElement; list: Element; column: number; place: number } | null>(null); // what has the focus, and where it is
  useLayoutEffect(() => {
    // Whoever accepts or deletes by the keyboard goes on with what is there now.
    const was = held.current;
    if (!was || was.el.isConnected || document.activeElement !== document.body) return;
    const rows = was.list.querySelectorAll("li");
    const row = rows[Math.min(was.place, rows.length - 1)];
    const next = row?.querySelectorAll<HTMLElement>("button")[was.column];
    held.current = null;
    if (next) next.focus();
    else document.querySelector<HTMLElement>(".canvas")?.focus();
  });
  const hold = (e: FocusEvent): void => {
    const el = e.target as HTMLElement;
    const row = el.closest("li");
    const rows = [...(row?.parentElement?.children ?? [])];
    const byKeyboard = el.matches(":focus-visible"); // a hand on the mouse presses Enter for the whole image
    held.current = row?.parentElement && byKeyboard ? { el, list: row.parentElement, column: [...row.querySelectorAll("button")].indexOf(el as HTMLButtonElement), place: rows.indexOf(row) } : null;
  };
  const release = (e: FocusEvent): void => void (e.relatedTarget && (held.current = null));
  if (!o) return null;
  const list = s.visible.value;
  return (
    <section class="panel boxes" onFocusIn={hold} onFocusOut={release}>
      <h2>{t.boxes} <span class="count">{o.boxes.length}</span></h2>
      {!o.boxes.length && !list.length && <p class="hint">{t.noBoxes}</p>}
      <ul>
        {o.boxes.map((b, i) => (
          <li key={b.key}>
            <button class={s.selected.value === b.key ? "row on" : "row"} onClick={() => (s.selected.value = b.key)} onFocus={() => (s.selected.value = b.key)}
              aria-label={t.boxOf(s.classOf(b.cls)?.name ?? t.whatIsIt, i + 1, Math.round(width(b.rect)), Math.round(height(b.rect)))}>
              <i style={{ background: b.cls < 0 ? "transparent" : s.colourOf(b.cls) }} />
              <span class="grow">{s.classOf(b.cls)?.name ?? t.whatIsIt}</span>
              <span class="count">{Math.round(width(b.rect))}×{Math.round(height(b.rect))}</span>
            </button>
            <button class="icon" aria-label={`${t.delete}: ${i + 1}`} title={t.delete} onClick={() => s.removeBox(b.key)}>×</button>
          </li>
        ))}
      </ul>
      {list.length > 0 && <h2>{t.suggestions(list.length)}</h2>}
      <ul>
        {list.map((v) => (
          <li key={v.rect.join()}>
            <button class="row dashed" onClick={() => s.accept(v)} aria-label={`${t.accept}. ${t.suggestionOf(s.classOf(v.cls)?.name ?? "", Math.round(v.confidence * 100))}`}>
              <i style={{ background: s.colourOf(v.cls) }} />
              <span class="grow">{s.classOf(v.cls)?.name}</span>
              <span class="count">{Math.round(v.confidence * 100)} %</span>
            </button>
            <button class="icon" aria-label={`${t.reject}. ${t.suggestionOf(s.classOf(v.cls)?.name ?? "", Math.round(v.confidence * 100))}`} title={t.reject} onClick={() => s.reject(v)}>×</button>
          </li>
        ))}
      </ul>
      <label class="slider">{t.suggested} ≥ {Math.round(s.minConfidence.value * 100)} %
        <input type="range" min="5" max="95" step="5" value={s.minConfidence.value * 100} onInput={(e) => (s.minConfidence.value = Number(e.currentTarget.value) / 100)} />
      </label>
    </section>
  );
}
