// All images as thumbnails. Only those in sight exist as elements, whatever the number.
import { useEffect, useRef, useState } from "preact/hooks";
import { api, type ImageRow } from "./api";
import * as s from "./state";
import { t } from "./texts";

const GAP = 12;
const CAPTION = 30;

export function Grid() {
  const host = useRef<HTMLDivElement>(null);
  const [box, setBox] = useState({ width: 0, height: 0, top: 0 });
  useEffect(() => {
    const el = host.current;
    if (!el) return undefined;
    const look = (): void => setBox({ width: el.clientWidth, height: el.clientHeight, top: el.scrollTop });
    const observer = new ResizeObserver(look);
    observer.observe(el);
    el.addEventListener("scroll", look, { passive: true });
    look();
    return () => {
      observer.disconnect();
      el.removeEventListener("scroll", look);
    };
  }, []);
  const list = s.shown.value;
  const inner = Math.max(box.width - 2 * GAP, 120);
  const columns = Math.max(2, Math.round(inner / 216));
  const side = Math.floor((inner - GAP * (columns - 1)) / columns);
  const pitch = side * 0.75 + CAPTION + GAP;
  const first = Math.max(0, Math.floor((box.top - GAP) / pitch) - 1);
  const last = Math.ceil((box.top + box.height) / pitch) + 1;
  const visible = list.slice(first * columns, last * columns);
  const project = s.project.value;
  const back = useRef(s.open.value?.id); // the image that one comes back from
  useEffect(() => {
    const el = host.current;
    const n = list.findIndex((r) => r.id === back.current);
    if (!el || !box.height || !back.current) return;
    back.current = undefined;
    if (n < 0) return;
    const top = GAP + Math.floor(n / columns) * pitch;
    if (top + pitch > el.clientHeight) el.scrollTop = top - (el.clientHeight - pitch) / 2;
    requestAnimationFrame(() => requestAnimationFrame(() => {
      if (document.activeElement === document.body) el.querySelector<HTMLElement>(`[data-n="${n}"]`)?.focus({ preventScroll: true });
    }));
  }, [box.height]);
  const going = useRef<number | null>(null); // where arrows have led while the page wasn't drawn yet
  /** Arrows go from image to image, as in every list of icons. */
  const onArrow = (e: KeyboardEvent): void => {
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[e.key];
    const el = host.current;
    const here = going.current ?? Number((e.target as HTMLElement).dataset.n);
    if (!by || !el || Number.isNaN(here)) return;
    const next = here + by;
    if (next < 0 || next >= list.length) return;
    e.preventDefault();
    const top = GAP + Math.floor(next / columns) * pitch;
    if (top < el.scrollTop) el.scrollTop = top - GAP;
    else if (top + pitch > el.scrollTop + el.clientHeight) el.scrollTop = top + pitch - el.clientHeight;
    setBox({ width: el.clientWidth, height: el.clientHeight, top: el.scrollTop });
    going.current = next;
    requestAnimationFrame(() => {
      if (going.current !== next) return; // another key has led further
      going.current = null;
      el.querySelector<HTMLElement>(`[data-n="${next}"]`)?.focus({ preventScroll: true });
    });
  };

  return (
    <div class="grid" ref={host} data-testid="grid" tabIndex={-1} onKeyDown={onArrow}>
      {project && !s.rows.value.length && (
        <div class="empty">
          <h2>{t.noImages}</h2>
          <p>{t.noImagesHint(project.folder)}</p>
          <button class="primary" onClick={() => void api.rescan()}>{t.lookAgain}</button>
        </div>
      )}
      {s.rows.value.length > 0 && !list.length && (
        <div class="empty">
          <p>{t.nothingMatches}</p>
          <button onClick={() => { s.filter.value = "all"; s.filterClass.value = null; s.filterFolder.value = ""; s.search.value = ""; }}>
            {t.showAll}
          </button>
        </div>
      )}
      {s.rows.value.length > 0 && s.doneCount.value === s.rows.value.length && (
        <div class="finished" role="status"><strong>{t.allDone}</strong> {t.allDoneHint}</div>
      )}
      <div class="sheet" style={{ height: `${Math.ceil(list.length / columns) * pitch + GAP}px` }}>
        {visible.map((row, i) => {
          const n = first * columns + i;
          const place = { width: `${side}px`, transform: `translate(${GAP + (n % columns) * (side + GAP)}px, ${GAP + Math.floor(n / columns) * pitch}px)` };
          return <Tile key={row.id} row={row} n={n} place={place} side={side} />;
        })}
      </div>
    </div>
  );
}

function Tile({ row, n, place, side }: { row: ImageRow; n: number; place: Record<string, string>; side: number }) {
  const [bad, setBad] = useState(false);
  const count = row.classes.length;
  const suggested = row.done ? 0 : (row.suggested?.classes.length ?? 0);
  const colours = [...new Set(row.done || !suggested ? row.classes : (row.suggested?.classes ?? []))].slice(0, 6);
  const words = row.done ? `${t.done}, ${count}` : suggested ? t.suggestions(suggested) : count ? `${count}` : "";
  return (
    <button class={`tile${row.done ? " done" : ""}${suggested ? " has" : ""}`} style={place} data-n={n} onClick={() => void s.openImage(row.id)}
      aria-label={`${row.name}. ${words}`}>
      <span class="shot" style={{ height: `${side * 0.75}px` }}>
        {bad ? <span class="bad">{t.unreadable}</span> :
          <img src={api.thumbnail(row.id)} alt="" loading="lazy" decoding="async" draggable={false} onError={() => setBad(true)} />}
        {row.done && <span class="tick" aria-hidden="true">✓</span>}
        {suggested > 0 && <span class="badge" aria-hidden="true">{suggested}</span>}
      </span>
      <span class="caption">
        <span class="name">{row.name}</span>
        <span class="dots">{colours.map((c) => <i key={c} style={{ background: s.colourOf(c) }} />)}</span>
      </span>
    </button>
  );
}
