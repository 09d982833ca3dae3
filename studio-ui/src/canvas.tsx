// The image, and boxes over it. Boxes are SVG elements: they can be focused, styled and found by name.
//
// A click snaps to the best window under the pointer; the wheel (while the pointer stays) or a key steps through the
// others. A drag draws. Two fingers, the wheel, or Space and a drag move the image.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { api } from "./api";
import { contains, HANDLES, height, moved, normal, resized, width, type Handle, type Rect } from "./geometry";
import { canvas as bridge } from "./keys";
import * as s from "./state";
import { t } from "./texts";

interface Camera { k: number; x: number; y: number } // screen = image * k + (x, y)
type Drag =
  | { kind: "draw"; from: [number, number]; to: [number, number] }
  | { kind: "pan"; at: [number, number]; start: Camera }
  | { kind: "move"; key: number; from: [number, number]; rect: Rect; now: Rect }
  | { kind: "resize"; key: number; handle: Handle; from: [number, number]; rect: Rect; now: Rect };
interface Snap { at: [number, number]; list: Rect[]; index: number; key: number }

const CLICK_PX = 4; // a movement shorter than this is a click
const MARGIN_PX = 24;

export function Canvas() {
  const o = s.open.value;
  const host = useRef<HTMLDivElement>(null);
  const [camera, setCamera] = useState<Camera>({ k: 1, x: 0, y: 0 });
  const [drag, setDrag] = useState<Drag | null>(null);
  const [pointer, setPointer] = useState<[number, number] | null>(null);
  const [broken, setBroken] = useState(false);
  const [ready, setReady] = useState("");
  const snap = useRef<Snap | null>(null);
  const space = useRef(false);
  const touches = useRef(new Map<number, [number, number]>());
  const live = useRef({ camera, drag, pointer });
  live.current = { camera, drag, pointer };

  const id = o?.id ?? "";
  const fit = (rect?: Rect): void => {
    const el = host.current;
    const now = s.open.value;
    if (!el || !now) return;
    const r: Rect = rect ?? [0, 0, now.width, now.height];
    const margin = rect ? Math.max(60, Math.min(el.clientWidth, el.clientHeight) / 5) : MARGIN_PX;
    const k = Math.min((el.clientWidth - 2 * margin) / width(r), (el.clientHeight - 2 * margin) / height(r), rect ? 8 : 4);
    setCamera({ k, x: (el.clientWidth - (r[0] + r[2]) * k) / 2, y: (el.clientHeight - (r[1] + r[3]) * k) / 2 });
  };
  useLayoutEffect(() => {
    setBroken(false);
    setDrag(null);
    snap.current = null;
    fit();
    if (document.activeElement === document.body || document.activeElement?.matches(".tile")) host.current?.focus({ preventScroll: true });
  }, [id]);
  useEffect(() => {
    const observer = new ResizeObserver(() => fit());
    if (host.current) observer.observe(host.current);
    return () => observer.disconnect();
  }, []);

  const toImage = (e: { clientX: number; clientY: number }): [number, number] => {
    const box = host.current?.getBoundingClientRect();
    const { camera: c } = live.current;
    return [(e.clientX - (box?.left ?? 0) - c.x) / c.k, (e.clientY - (box?.top ?? 0) - c.y) / c.k];
  };
  const zoom = (factor: number, clientX: number, clientY: number): void => {
    const box = host.current?.getBoundingClientRect();
    if (!box) return;
    setCamera((c) => {
      const k = Math.min(Math.max(c.k * factor, 0.02), 40);
      const [px, py] = [clientX - box.left, clientY - box.top];
      return { k, x: px - ((px - c.x) * k) / c.k, y: py - ((py - c.y) * k) / c.k };
    });
  };

  const snapBy = (by: number): void => {
    const now = snap.current;
    if (now && s.open.value?.boxes.some((b) => b.key === now.key)) {
      now.index = (now.index + by + now.list.length) % now.list.length;
      const rect = now.list[now.index];
      if (rect) s.setRect(now.key, rect, "snapped", "snap");
      return;
    }
    if (by > 0) snapAt(live.current.pointer ?? middle());
  };
  /** The middle of what is seen: the pointer of those who use no mouse. */
  const middle = (): [number, number] => {
    const { camera: c } = live.current;
    const now = s.open.value;
    const el = host.current;
    const clip = (v: number, most: number): number => Math.min(Math.max(v, 0), most - 1);
    return [
      clip(((el?.clientWidth ?? 0) / 2 - c.x) / c.k, now?.width ?? 1), clip(((el?.clientHeight ?? 0) / 2 - c.y) / c.k, now?.height ?? 1),
    ];
  };
  const snapAt = (at: [number, number]): void => {
    const list = s.snapsAt(at[0], at[1]);
    const first = list[0];
    if (!first) {
      if (!s.open.value?.windows) s.toast.value = { text: t.windowsBusy };
      return;
    }
    s.addBox(first, "snapped");
    snap.current = { at, list, index: 0, key: s.selected.value ?? -1 };
  };
  const under = (): s.Suggestion | null => {
    const at = live.current.pointer;
    if (!at) return s.visible.value[0] ?? null;
    const hits = s.visible.value.filter((v) => contains(v.rect, at[0], at[1]));
    hits.sort((a, b) => width(a.rect) * height(a.rect) - width(b.rect) * height(b.rect));
    return hits[0] ?? null;
  };
  useEffect(() => {
    bridge.snap = snapBy;
    bridge.draw = () => {
      snap.current = null;
      s.drawAt(...(live.current.pointer ?? middle()));
    };
    bridge.fit = () => fit();
    bridge.zoomTo = () => {
      const box = s.open.value?.boxes.find((b) => b.key === s.selected.value);
      if (box) fit(box.rect);
    };
    bridge.suggestion = under;
    bridge.pan = (x, y) => setCamera((c) => ({ ...c, x: c.x + x, y: c.y + y }));
    const down = (e: KeyboardEvent): void => {
      if (e.key !== " " || (e.target as HTMLElement).tagName === "BUTTON") return;
      space.current = true;
      if (e.target === document.body || e.target === host.current) e.preventDefault();
    };
    const up = (e: KeyboardEvent): void => void (e.key === " " && (space.current = false));
    window.addEventListener("keydown", down);
    window.addEventListener("keyup", up);
    return () => {
      window.removeEventListener("keydown", down);
      window.removeEventListener("keyup", up);
    };
  }, []);
  useEffect(() => {
    // Not passive, so that the page itself does not scroll or zoom.
    const el = host.current;
    const wheel = (e: WheelEvent): void => {
      e.preventDefault();
      const at = toImage(e);
      const now = snap.current;
      const far = !now || Math.hypot(at[0] - now.at[0], at[1] - now.at[1]) * live.current.camera.k > 2 * CLICK_PX;
      if (now && !far && !e.ctrlKey) snapBy(e.deltaY > 0 ? 1 : -1);
      else if (e.shiftKey) setCamera((c) => ({ ...c, x: c.x - e.deltaY - e.deltaX }));
      else zoom(Math.exp(-e.deltaY * (e.ctrlKey ? 0.01 : 0.0015)), e.clientX, e.clientY);
    };
    el?.addEventListener("wheel", wheel, { passive: false });
    return () => el?.removeEventListener("wheel", wheel);
  }, []);

  if (!o) return <div class="canvas" ref={host} />;

  const start = (e: PointerEvent): void => {
    if (e.button > 1) return;
    host.current?.setPointerCapture(e.pointerId);
    (document.activeElement as HTMLElement | null)?.blur();
    const at = toImage(e);
    if (e.pointerType === "touch") {
      touches.current.set(e.pointerId, [e.clientX, e.clientY]);
      if (touches.current.size === 2) return setDrag(null);
    }
    const target = e.target as Element;
    const handle = target.getAttribute("data-handle") as Handle | null;
    const key = Number(target.getAttribute("data-key"));
    const box = o.boxes.find((b) => b.key === key);
    if (e.button === 1 || space.current) return setDrag({ kind: "pan", at: [e.clientX, e.clientY], start: camera });
    if (box && handle) return setDrag({ kind: "resize", key, handle, from: at, rect: box.rect, now: box.rect });
    if (box && s.selected.value === key) return setDrag({ kind: "move", key, from: at, rect: box.rect, now: box.rect });
    setDrag({ kind: "draw", from: at, to: at });
  };
  const move = (e: PointerEvent): void => {
    const at = toImage(e);
    setPointer(at);
    const other = [...touches.current.entries()].find(([k]) => k !== e.pointerId)?.[1];
    const before = touches.current.get(e.pointerId);
    if (before && other) {
      const was = Math.hypot(before[0] - other[0], before[1] - other[1]);
      const is = Math.hypot(e.clientX - other[0], e.clientY - other[1]);
      touches.current.set(e.pointerId, [e.clientX, e.clientY]);
      zoom(is / Math.max(was, 1), (e.clientX + other[0]) / 2, (e.clientY + other[1]) / 2);
      setCamera((c) => ({ ...c, x: c.x + (e.clientX - before[0]) / 2, y: c.y + (e.clientY - before[1]) / 2 }));
      return;
    }
    if (before) touches.current.set(e.pointerId, [e.clientX, e.clientY]);
    if (!drag) return;
    if (drag.kind === "draw") setDrag({ ...drag, to: at });
    else if (drag.kind === "pan") {
      setCamera({ ...drag.start, x: drag.start.x + e.clientX - drag.at[0], y: drag.start.y + e.clientY - drag.at[1] });
    } else {
      const [dx, dy] = [at[0] - drag.from[0], at[1] - drag.from[1]];
      const now = drag.kind === "move" ? moved(drag.rect, dx, dy, o.width, o.height) : resized(drag.rect, drag.handle, dx, dy);
      setDrag({ ...drag, now });
    }
  };
  const cancel = (e: PointerEvent): void => { // the system took the pointer away: nothing was meant
    touches.current.delete(e.pointerId);
    setDrag(null);
  };
  const end = (e: PointerEvent): void => {
    touches.current.delete(e.pointerId);
    if (!drag) return;
    setDrag(null);
    if (drag.kind === "pan") return;
    if (drag.kind !== "draw") {
      if (drag.now !== drag.rect && drag.now.some((v, i) => Math.abs(v - (drag.rect[i] ?? 0)) > 0.01)) {
        snap.current = null;
        s.setRect(drag.key, drag.now);
      } else click(e, drag.from);
      return;
    }
    const long = Math.max(Math.abs(drag.to[0] - drag.from[0]), Math.abs(drag.to[1] - drag.from[1])) * camera.k;
    if (long < CLICK_PX) return click(e, drag.from);
    const rect = normal([...drag.from, ...drag.to], o.width, o.height);
    if (width(rect) >= 2 && height(rect) >= 2) {
      snap.current = null;
      s.addBox(rect, "drawn");
    }
  };
  const click = (e: PointerEvent, at: [number, number]): void => {
    setPointer(at);
    live.current.pointer = at;
    // The smallest box under the pointer that is not selected yet; then a suggestion; then a window.
    const own = o.boxes.filter((b) => contains(b.rect, at[0], at[1]));
    own.sort((a, b) => width(a.rect) * height(a.rect) - width(b.rect) * height(b.rect));
    const chosen = own.find((b) => b.key === s.selected.value);
    const one = under();
    if (one && !e.altKey) return s.accept(one);
    const next = own.find((b) => b !== chosen);
    if (next && !chosen && !e.altKey) {
      snap.current = null;
      s.selected.value = next.key;
      return;
    }
    if (at[0] < 0 || at[1] < 0 || at[0] >= o.width || at[1] >= o.height) {
      s.selected.value = null;
      return;
    }
    snapAt(at);
  };

  const rectOf = (b: s.Box): Rect => (drag && (drag.kind === "move" || drag.kind === "resize") && drag.key === b.key
    ? normal(drag.now, o.width, o.height) : b.rect);
  const style = { transform: `translate(${camera.x}px, ${camera.y}px) scale(${camera.k})`, width: `${o.width}px`, height: `${o.height}px` };
  const size = 9 / camera.k;
  const label = 13 / camera.k;
  return (
    <div class={`canvas${drag?.kind === "pan" ? " panning" : ""}`} ref={host} tabIndex={-1} role="group" aria-label={o.name} onPointerDown={start} onPointerMove={move}
      onPointerUp={end} onPointerCancel={cancel} onPointerLeave={() => !drag && setPointer(null)} data-testid="canvas">
      <div class="stage" style={style}>
        {broken ? <div class="broken" style={{ fontSize: `${16 / camera.k}px` }}>{t.unreadable}</div> :
          <img src={api.view(o.id)} alt={o.name} draggable={false} class={ready === o.id ? "" : "loading"}
            onLoad={() => setReady(o.id)} onError={() => setBroken(true)} />}
        <svg viewBox={`0 0 ${o.width} ${o.height}`} class={s.hidden.value ? "hide" : ""} style={{ "--k": camera.k }}>
          {s.visible.value.map((v) => (
            <g key={v.rect.join()} class="suggestion" style={{ color: s.colourOf(v.cls) }}>
              <Outline r={v.rect} />
              <Name r={v.rect} size={label} text={`${s.classOf(v.cls)?.name ?? "?"} ${Math.round(v.confidence * 100)}`} />
            </g>
          ))}
          {o.boxes.map((b, i) => {
            const r = rectOf(b);
            const on = s.selected.value === b.key;
            return (
              <g key={b.key} class={on ? "box on" : "box"} style={{ color: b.cls < 0 ? "var(--accent)" : s.colourOf(b.cls) }}>
                <rect class="area" data-key={b.key} x={r[0]} y={r[1]} width={width(r)} height={height(r)} />
                <Outline r={r} />
                <Name r={r} size={label} text={s.classOf(b.cls)?.name ?? t.whatIsIt} />
                {on && HANDLES.map((h) => <Grip key={h} handle={h} r={r} size={size} id={b.key} />)}
                <title>{t.boxOf(s.classOf(b.cls)?.name ?? "", i + 1, Math.round(width(r)), Math.round(height(r)))}</title>
              </g>
            );
          })}
          {s.lookAt.value && <rect class="look" x={s.lookAt.value[0]} y={s.lookAt.value[1]} width={width(s.lookAt.value)} height={height(s.lookAt.value)} />}
          {drag?.kind === "draw" && <g class="box on drawing"><Outline r={normal([...drag.from, ...drag.to], o.width, o.height)} /></g>}
        </svg>
      </div>
      {pointer && !drag && <Crosshair camera={camera} at={pointer} />}
      {s.naming.value !== null && <Naming camera={camera} />}
    </div>
  );
}

function Outline({ r }: { r: Rect }) {
  return (
    <>
      <rect class="halo" x={r[0]} y={r[1]} width={width(r)} height={height(r)} />
      <rect class="line" x={r[0]} y={r[1]} width={width(r)} height={height(r)} />
    </>
  );
}

function Name({ r, size, text }: { r: Rect; size: number; text: string }) {
  const above = r[1] > size * 1.7;
  const y = above ? r[1] - size * 0.45 : r[1] + size * 1.15;
  return <text x={r[0] + size * 0.2} y={y} font-size={size} stroke-width={size / 4}>{text}</text>;
}

function Grip({ handle, r, size, id }: { handle: Handle; r: Rect; size: number; id: number }) {
  const x = handle.includes("w") ? r[0] : handle.includes("e") ? r[2] : (r[0] + r[2]) / 2;
  const y = handle.startsWith("n") ? r[1] : handle.startsWith("s") ? r[3] : (r[1] + r[3]) / 2;
  return (
    <>
      <rect class="grip" x={x - size / 2} y={y - size / 2} width={size} height={size} rx={size / 5} />
      <rect class={`catch ${handle}`} data-key={id} data-handle={handle} x={x - size} y={y - size} width={2 * size} height={2 * size} />
    </>
  );
}

function Crosshair({ camera, at }: { camera: Camera; at: [number, number] }) {
  return (
    <>
      <div class="cross v" style={{ transform: `translateX(${at[0] * camera.k + camera.x}px)` }} />
      <div class="cross h" style={{ transform: `translateY(${at[1] * camera.k + camera.y}px)` }} />
    </>
  );
}

/** Asks what a new box is, beside it. */
function Naming({ camera }: { camera: Camera }) {
  const [text, setText] = useState("");
  const input = useRef<HTMLInputElement>(null);
  const key = s.naming.value;
  const box = s.open.value?.boxes.find((b) => b.key === key);
  useEffect(() => input.current?.focus(), [key]);
  if (!box || key === null) return null;
  const x = Math.max(8, box.rect[0] * camera.k + camera.x);
  const y = Math.max(8, box.rect[3] * camera.k + camera.y + 8);
  const finish = async (): Promise<void> => {
    if (!text.trim()) return;
    const cls = await s.addClass(text);
    if (cls !== null) s.setClass(key, cls);
  };
  return (
    <form class="naming" style={{ left: `min(${x}px, calc(100% - 16rem))`, top: `min(${y}px, calc(100% - 4rem))` }}
      onPointerDown={(e) => e.stopPropagation()}
      onSubmit={(e) => { e.preventDefault(); void finish(); }}>
      <input ref={input} value={text} placeholder={t.whatIsIt} aria-label={t.className} list="class-names" maxLength={200}
        onInput={(e) => setText(e.currentTarget.value)}
        onKeyDown={(e) => { if (e.key === "Escape") { s.dropUnnamed(key); e.stopPropagation(); } }} />
      <datalist id="class-names">{s.classes.value.map((c) => <option key={c.id} value={c.name} />)}</datalist>
      <button type="submit" class="primary">{t.ok}</button>
    </form>
  );
}
