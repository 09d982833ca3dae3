// Everything that opens over the page.
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { effect } from "@preact/signals";
import { AddImages, LeftOut } from "./adding";
import { api, type Compared, type Detection, type Found, type Statistics } from "./api";
import { keys, NAMES, nameOf, resetKeys, setKey, type Action } from "./keys";
import { editing } from "./panels";
import * as s from "./state";
import { t } from "./texts";

export function Dialogs() {
  if (s.conflict.value) return <ConflictDialog />;
  switch (s.dialog.value) {
    case "help": return <Help />;
    case "quality": return <QualityDialog />;
    case "train": return <Train />;
    case "compare": return <Compare />;
    case "try": return <Try />;
    case "export": return <Export />;
    case "more": return <More />;
    case "class": return <ClassDialog />;
    default: return null;
  }
}

/** What happened. A dialog has its own: what lies behind it is dim, and nobody reads it out. */
export function Toast() {
  const now = s.toast.value;
  useEffect(() => {
    if (!now) return undefined;
    const timer = setTimeout(() => (s.toast.value = null), 6000);
    return () => clearTimeout(timer);
  }, [now]);
  return <div class={now ? "toast on" : "toast"} role="status" aria-live="polite">{now?.text}</div>;
}

// Where the keyboard was before a dialog opened, and is again when it is closed.
let opener: Element | null = null;
effect(() => {
  if (s.dialog.value || s.conflict.value) opener ??= document.activeElement;
  else if (opener) {
    const back = opener;
    opener = null;
    requestAnimationFrame(() => {
      if (back instanceof HTMLElement && back.isConnected && document.activeElement === document.body) back.focus();
    });
  }
});

/** A dialog; one that `stays` waits for an answer. */
function Sheet({ title, wide, stays, children }: { title: string; wide?: boolean; stays?: boolean; children: ComponentChildren }) {
  const ref = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const el = ref.current;
    if (el && !el.open) el.showModal();
  }, []);
  const close = (): void => {
    if (stays) ref.current?.isConnected && !ref.current.open && ref.current.showModal();
    else s.dialog.value = "";
  };
  return (
    <dialog ref={ref} class={wide ? "wide" : ""} aria-label={title} onCancel={(e) => (stays ? e.preventDefault() : close())} onClose={close}
      onClick={(e) => e.target === ref.current && close()}>
      <header><h1>{title}</h1>{!stays && <button class="icon" aria-label={t.close} onClick={close}>×</button>}</header>
      <div class="content">{children}</div>
      <Toast />
    </dialog>
  );
}

function ConflictDialog() {
  return (
    <Sheet title={t.conflict} stays>
      <p>{s.rows.value.find((r) => r.id === s.conflict.value?.id)?.name}</p>
      <div class="actions">
        <button onClick={() => s.resolveConflict(false)}>{t.takeTheirs}</button>
        <button class="primary" onClick={() => s.resolveConflict(true)}>{t.keepMine}</button>
      </div>
    </Sheet>
  );
}

function Help() {
  const [changing, setChanging] = useState<Action | null>(null);
  useEffect(() => {
    if (!changing) return undefined;
    const take = (e: KeyboardEvent): void => {
      if (["Shift", "Control", "Alt", "Meta"].includes(e.key)) return;
      e.preventDefault();
      e.stopPropagation();
      if (e.key !== "Escape") setKey(changing, nameOf(e));
      setChanging(null);
    };
    window.addEventListener("keydown", take, true);
    return () => window.removeEventListener("keydown", take, true);
  }, [changing]);
  return (
    <Sheet title={t.help} wide>
      <p class="hint">{t.keysHint}</p>
      <dl class="keys">
        {(Object.keys(NAMES) as Action[]).map((a) => (
          <div key={a}>
            <dt>{NAMES[a]}</dt>
            <dd><button onClick={() => setChanging(a)}>{changing === a ? t.changeKey : <kbd>{keys.value[a] || "–"}</kbd>}</button></dd>
          </div>
        ))}
        <div><dt>{t.keyClass}</dt><dd><kbd>1</kbd> … <kbd>9</kbd></dd></div>
        <div><dt>{t.keyMove}</dt><dd><kbd>← ↑ → ↓</kbd> <kbd>Shift</kbd></dd></div>
        <div><dt>{t.keyResize}</dt><dd><kbd>Alt</kbd> + <kbd>← ↑ → ↓</kbd></dd></div>
        <div><dt>{t.keyPan}</dt><dd><kbd>Space</kbd> + {t.drag}, <kbd>← ↑ → ↓</kbd></dd></div>
        <div><dt>{t.keyInside}</dt><dd><kbd>Alt</kbd> + {t.click}</dd></div>
      </dl>
      <div class="actions"><button onClick={resetKeys}>{t.resetKeys}</button></div>
    </Sheet>
  );
}

function QualityDialog() {
  useEffect(() => void s.loadQuality(), []);
  const data = s.quality.value;
  const percent = (v: number | null): string => (v === null ? "–" : `${Math.round(v * 100)}`);
  return (
    <Sheet title={t.quality} wide>
      {!data ? <p class="hint">…</p> : !data.classes.length || !data.images ? <p>{t.qualityNone}</p> : (
        <>
          <p class="hint">{t.qualityIntro(data.images)} {data.folds ? t.qualityMeasured(data.measured, data.folds) : t.qualityLater}</p>
          <div class="scroll">
            <table>
              <thead>
                <tr><th>{t.filterClass}</th><th>{t.kept}</th><th>{t.moved}</th><th>{t.deleted}</th><th>{t.added}</th><th>{t.ap}</th><th>{t.moreImages}</th></tr>
              </thead>
              <tbody>
                {data.classes.map((c) => (
                  <tr key={c.id}>
                    <th scope="row"><i style={{ background: s.colourOf(c.id) }} /> {s.classOf(c.id)?.name}</th>
                    <td>{c.kept}</td><td>{c.moved}</td><td>{c.deleted}</td><td>{c.added}</td>
                    <td>{percent(c.ap)}{c.ap_low !== null && <small> {percent(c.ap_low)}–{percent(c.ap_high)}</small>}</td>
                    <td class="hint">{c.trend && c.half_ap !== null && c.ap !== null
                      ? t.trend(c.trend, c.more, Math.round((c.ap - c.half_ap) * 100)) : ""}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
          {data.curve.length > 1 && <Curve points={data.curve} />}
          {data.folds > 0 && <h2>{t.disagree}</h2>}
          {data.folds > 0 && !data.disagreements.length && <p class="hint">{t.agrees}</p>}
          <ul class="disagree">
            {data.disagreements.map((d) => (
              <li key={d.image + d.box.join()}>
                <button onClick={() => { s.dialog.value = ""; void s.openAt(d.image, d.box); }}>
                  <img src={api.thumbnail(d.image)} alt="" />
                  <span>{d.name}: {t.doubt[d.kind](s.classOf(d.class)?.name ?? "?", Math.round(d.sure * 100))}</span>
                </button>
              </li>
            ))}
          </ul>
        </>
      )}
    </Sheet>
  );
}

/** Mean average precision by the number of images, on a scale of doublings. */
function Curve({ points }: { points: { images: number; ap: number }[] }) {
  const [w, h, left, bottom] = [460, 150, 34, 24];
  const most = Math.max(...points.map((p) => p.images));
  const least = Math.min(...points.map((p) => p.images));
  const x = (n: number): number => left + 12 + ((w - left - 40) * Math.log2(n / least)) / Math.max(Math.log2(most / least), 0.01);
  const y = (ap: number): number => 10 + (h - bottom - 14) * (1 - ap);
  return (
    <figure class="curve">
      <figcaption>{t.curve}</figcaption>
      <svg viewBox={`0 0 ${w} ${h}`} role="img" aria-label={points.map((p) => `${p.images}: ${Math.round(p.ap * 100)}`).join(", ")}>
        {[0, 0.5, 1].map((v) => (
          <g key={v}><line x1={left} x2={w} y1={y(v)} y2={y(v)} /><text x={left - 6} y={y(v) + 4} text-anchor="end">{v * 100}</text></g>
        ))}
        <polyline points={points.map((p) => `${x(p.images)},${y(p.ap)}`).join(" ")} />
        {points.map((p) => (
          <g key={p.images}><circle cx={x(p.images)} cy={y(p.ap)} r="4" /><text x={x(p.images)} y={h - 4} text-anchor="middle">{p.images}</text></g>
        ))}
      </svg>
    </figure>
  );
}

function Train() {
  const now = s.status.value?.training;
  const running = now?.state === "running";
  const percent = (v: number | null | undefined): string => (v === null || v === undefined ? "–" : `${Math.round(v * 100)}`);
  const start = (): void => void s.tell(api.train());
  return (
    <Sheet title={t.train}>
      <p>{t.trainIntro}</p>
      {running && now && (
        <>
          <progress value={now.fraction} max={1} aria-label={now.stage} />
          <p class="hint" role="status">
            {Math.round(now.fraction * 100)} %, {now.stage}{now.seconds_left !== null ? t.left(t.seconds(now.seconds_left)) : ""}
          </p>
        </>
      )}
      {now && !running && now.message && <p role="status" class={now.state === "failed" ? "problem" : ""}>{now.message}</p>}
      {now?.state === "done" && (
        <>
          <dl class="pair">
            <div><dt>{t.before}</dt><dd>{percent(now.before)}</dd></div>
            <div><dt>{t.after(now.images)}</dt><dd>{percent(now.after)}</dd></div>
          </dl>
          <p class="hint">{t.pairHint}</p>
        </>
      )}
      <div class="actions">
        {now?.state === "done" && <button onClick={() => (s.dialog.value = "compare")}>{t.compare}</button>}
        {running ? <button onClick={() => void s.tell(api.cancelTraining())}>{t.trainStop}</button> :
          <button class="primary" onClick={start}>{now?.state === "cancelled" ? t.trainGoOn : t.trainStart}</button>}
      </div>
    </Sheet>
  );
}

/** What is found before and after the full training, image by image. */
function Compare() {
  const list = [...s.rows.value.filter((r) => !r.done), ...s.rows.value.filter((r) => r.done)];
  const [place, setPlace] = useState(0);
  const [found, setFound] = useState<Compared | null>(null);
  const row = list[place];
  useEffect(() => {
    let gone = false;
    setFound(null);
    if (row) void s.tell(api.compare(row.id)).then((answer) => !gone && setFound(answer));
    return () => { gone = true; };
  }, [row?.id]);
  if (!row) return null;
  const sides: [string, Detection[] | undefined][] = [[t.before, found?.before], [t.after(null), found?.after]];
  return (
    <Sheet title={t.compare} wide>
      <div class="sides">
        {sides.map(([title, detections]) => (
          <figure key={title}>
            <figcaption>{title}{detections && `: ${detections.length}`}</figcaption>
            <div class="shown">
              <img src={api.view(row.id)} alt={row.name} />
              {found && detections && <Detections found={{ ...found, detections }} />}
            </div>
          </figure>
        ))}
      </div>
      <div class="actions">
        <span class="grow hint">{row.name}{found ? "" : " …"}</span>
        <button disabled={place === 0} onClick={() => setPlace(place - 1)} aria-label={t.previous}>←</button>
        <button disabled={place === list.length - 1} onClick={() => setPlace(place + 1)} aria-label={t.next}>→</button>
      </div>
    </Sheet>
  );
}

function Detections({ found }: { found: { width: number; height: number; detections: Detection[] } }) {
  const sheet = useRef<SVGSVGElement>(null);
  const [k, setK] = useState(1); // pixels of the screen for each of the image: names are as large as other text
  useEffect(() => {
    const el = sheet.current;
    if (!el) return undefined;
    const observer = new ResizeObserver(() => setK(Math.max(el.clientWidth, 1) / found.width));
    observer.observe(el);
    return () => observer.disconnect();
  }, [found.width]);
  const size = 13 / k;
  return (
    <svg ref={sheet} viewBox={`0 0 ${found.width} ${found.height}`} style={{ "--k": k }}>
      {found.detections.map((d) => {
        const cls = s.classes.value.find((c) => c.name === d.class);
        return (
          <g key={d.box.join()} class="box" style={{ color: cls ? s.colourOf(cls.id) : "var(--accent)" }}>
            <rect class="halo" x={d.box[0]} y={d.box[1]} width={d.box[2] - d.box[0]} height={d.box[3] - d.box[1]} />
            <rect class="line" x={d.box[0]} y={d.box[1]} width={d.box[2] - d.box[0]} height={d.box[3] - d.box[1]} />
            <text x={d.box[0] + size / 5} y={d.box[1] > size * 1.7 ? d.box[1] - size * 0.45 : d.box[1] + size * 1.15} font-size={size} stroke-width={size / 4}>{d.class} {Math.round(d.confidence * 100)}</text>
          </g>
        );
      })}
    </svg>
  );
}

function Try() {
  const [source, setSource] = useState<string>("");
  const [found, setFound] = useState<Found | null>(null);
  const [camera, setCamera] = useState<MediaStream | null>(null);
  const video = useRef<HTMLVideoElement>(null);
  const look = async (image: Blob): Promise<void> => {
    const url = URL.createObjectURL(image);
    setSource((old) => { if (old) URL.revokeObjectURL(old); return url; });
    setFound(null);
    try {
      setFound(await api.detect(image));
    } catch (e) {
      s.toast.value = { text: (e as Error).message };
    }
  };
  useEffect(() => {
    if (!camera || !video.current) return undefined;
    let stop = false;
    const el = video.current;
    el.srcObject = camera;
    const loop = async (): Promise<void> => {
      const sheet = document.createElement("canvas");
      while (!stop) {
        await new Promise((done) => setTimeout(done, 50));
        if (!el.videoWidth) continue;
        sheet.width = el.videoWidth;
        sheet.height = el.videoHeight;
        sheet.getContext("2d")?.drawImage(el, 0, 0);
        const frame = await new Promise<Blob | null>((done) => sheet.toBlob(done, "image/jpeg", 0.9));
        if (frame && !stop) await api.detect(frame).then(setFound, () => undefined);
      }
    };
    void el.play().then(loop);
    return () => {
      stop = true;
      camera.getTracks().forEach((track) => track.stop());
    };
  }, [camera]);
  const take = (list: FileList | null | undefined): void => { const file = list?.[0]; if (file) void look(file); };
  return (
    <Sheet title={t.tryIt} wide>
      <div class="drop" onDragOver={(e) => e.preventDefault()} onDrop={(e) => { e.preventDefault(); take(e.dataTransfer?.files); }}>
        {(source || camera) ? (
          <div class="shown">
            {camera ? <video ref={video} muted playsInline /> : <img src={source} alt="" />}
            {found && <Detections found={found} />}
          </div>
        ) : <p>{t.tryIntro}</p>}
      </div>
      {found && <p role="status">{t.found(found.detections.length, Math.round(found.milliseconds))} {found.trained ? t.byTrained : t.byTaught}</p>}
      <div class="actions">
        <label class="button">{t.chooseFile}<input type="file" accept="image/*" onChange={(e) => take(e.currentTarget.files)} /></label>
        <button onClick={() => camera ? setCamera(null) : void navigator.mediaDevices.getUserMedia({ video: true }).then(setCamera, (e: Error) => (s.toast.value = { text: e.message }))}>
          {camera ? t.stopCamera : t.camera}
        </button>
      </div>
    </Sheet>
  );
}

const IN_MEMORY_BYTES = 512 * 1024 * 1024; // a file up to this is held by the page, so that its name and errors are known

/** Fetch a file to keep, and say why if there is none. */
async function download(address: string): Promise<void> {
  const stop = new AbortController();
  const answer = await fetch(address, { credentials: "same-origin", signal: stop.signal });
  if (!answer.ok) {
    const { error } = (await answer.json().catch(() => ({}))) as { error?: string };
    throw new Error(error ?? `the server answered ${answer.status}`);
  }
  const name = /filename\*?=(?:utf-8'')?"?([^";]+)/i.exec(answer.headers.get("content-disposition") ?? "")?.[1] ?? "";
  const link = document.createElement("a");
  link.href = address;
  link.download = decodeURIComponent(name);
  if (Number(answer.headers.get("content-length") ?? Infinity) > IN_MEMORY_BYTES) stop.abort(); // the browser's own way
  else link.href = URL.createObjectURL(await answer.blob());
  link.click();
  if (link.href.startsWith("blob:")) setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function File({ what, children }: { what: string; children: string }) {
  const [busy, setBusy] = useState(false);
  const address = `/api/export?what=${what}`;
  const take = (e: MouseEvent): void => {
    e.preventDefault();
    if (busy) return;
    setBusy(true);
    void s.tell(download(address)).then(() => setBusy(false));
  };
  return <a class="button" href={address} download="" aria-busy={busy} onClick={take}>{children}{busy && " …"}</a>;
}

function Export() {
  const [format, setFormat] = useState("coco");
  const lines = `from sppnet import SPPDetector

detector = SPPDetector.load("model.safetensors")
found = detector.detect("image.jpg")
for box, confidence, name in zip(found.xyxy, found.confidence, found.class_name):
    print(name, round(float(confidence), 2), box)`;
  return (
    <Sheet title={t.export}>
      <p>{t.exportIntro}</p>
      <div class="downloads">
        <File what="model">{t.exportModel}</File>
        <File what="onnx">{t.exportOnnx}</File>
        <span>
          <File what={`dataset&format=${format}`}>{t.exportLabels}</File>
          <select value={format} aria-label={t.format} onChange={(e) => setFormat(e.currentTarget.value)}>
            {["coco", "voc", "yolo", "csv", "labelme", "cvat"].map((f) => <option key={f} value={f}>{f.toUpperCase()}</option>)}
          </select>
        </span>
        <File what="results">{t.exportResults}</File>
        <File what="card">{t.exportCard}</File>
      </div>
      <h2>{t.useInCode}</h2>
      <pre><code>{lines}</code></pre>
      <button onClick={() => void navigator.clipboard.writeText(lines).then(() => (s.toast.value = { text: t.copied }))}>{t.copy}</button>
    </Sheet>
  );
}

function More() {
  const [list, setList] = useState<{ name: string; why: string; images: number }[] | null>(null);
  const [figures, setFigures] = useState<Statistics | null>(null);
  const load = (): void => void s.tell(api.snapshots()).then((r) => r && setList(r.snapshots));
  useEffect(() => {
    load();
    void s.tell(api.statistics()).then(setFigures);
  }, []);
  const restore = async (name: string): Promise<void> => {
    if (!confirm(t.goBackSure(name)) || !(await s.tell(api.restore(name)))) return;
    s.toast.value = { text: t.wentBack(name) };
    load();
  };
  return (
    <Sheet title={t.more} wide>
      <LeftOut />
      {matchMedia("(max-width: 900px)").matches && <AddImages />}
      <h2>{t.statistics}</h2>
      {figures && !figures.classes.length && <p class="hint">{t.firstClass}</p>}
      {figures && figures.classes.length > 0 && (
        <div class="scroll">
          <table>
            <thead><tr><th>{t.filterClass}</th><th>{t.boxes}</th><th>{t.imagesWord}</th><th>{t.medianSize}</th></tr></thead>
            <tbody>
              {figures.classes.map((c) => (
                <tr key={c.id}>
                  <th scope="row"><i style={{ background: s.colourOf(c.id) }} /> {s.classOf(c.id)?.name}</th>
                  <td>{c.boxes}</td><td>{c.images}</td><td>{c.boxes ? `${Math.round(c.width)} × ${Math.round(c.height)}` : "–"}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {figures && figures.classes.length > 0 && (
        <>
          <h2>{t.oddBoxes}</h2>
          {!figures.odd.length && <p class="hint">{t.nothingOdd}</p>}
          <ul class="disagree">
            {figures.odd.map((o) => (
              <li key={o.image + o.box.join()}>
                <button onClick={() => { s.dialog.value = ""; void s.openAt(o.image, o.box); }}>
                  <img src={api.thumbnail(o.image)} alt="" /><span>{o.name}: {s.classOf(o.class)?.name}, {t.odd[o.kind]}</span>
                </button>
              </li>
            ))}
          </ul>
        </>
      )}
      <h2>{t.snapshots}</h2>
      <p class="hint">{t.snapshotsHint}</p>
      <ul class="snapshots">
        {list?.map((item) => (
          <li key={item.name}>
            <span class="grow">{item.name} <small>{t.images(item.images)}, {item.why}</small></span>
            <button onClick={() => void restore(item.name)} aria-label={`${t.goBack}: ${item.name}`}>{t.goBack}</button>
          </li>
        ))}
      </ul>
      <div class="actions">
        <button onClick={() => void s.tell(api.rescan()).then((r) => r && (s.toast.value = { text: t.lookedAgain(r.new) }))}>{t.lookAgain}</button>
        <button class="primary" onClick={() => void s.tell(api.snapshot()).then(load)}>{t.makeSnapshot}</button>
      </div>
    </Sheet>
  );
}

function ClassDialog() {
  const c = s.classOf(editing.id);
  const [name, setName] = useState(c?.name ?? "");
  const [into, setInto] = useState("");
  const close = (): void => void (s.dialog.value = "");
  useLayoutEffect(() => {
    if (!c) close(); // somebody removed it
  }, [!c]);
  if (!c) return null;
  const count = s.rows.value.reduce((n, r) => n + r.classes.filter((k) => k === c.id).length, 0);
  const takeKey = (field: HTMLInputElement): void => {
    const key = field.value.slice(-1);
    const action = (Object.keys(keys.value) as Action[]).find((a) => keys.value[a] === key);
    if (action) {
      field.value = c.key;
      s.toast.value = { text: t.keyTaken(key, NAMES[action]) };
      return;
    }
    const other = s.classes.value.find((k) => key && k.key === key && k.id !== c.id);
    if (other) void s.editClass(other.id, { key: "" });
    void s.editClass(c.id, { key });
  };
  return (
    <Sheet title={c.name}>
      <form class="fields" onSubmit={(e) => { e.preventDefault(); void s.editClass(c.id, { name }).then((made) => made && close()); }}>
        <label>{t.className}<input value={name} maxLength={200} onInput={(e) => setName(e.currentTarget.value)} /></label>
        <label>{t.colour}<input type="color" value={s.colourOf(c.id)} onChange={(e) => void s.editClass(c.id, { color: e.currentTarget.value })} /></label>
        <label>{t.key}<input value={c.key} maxLength={1} size={2} onInput={(e) => takeKey(e.currentTarget)} /></label>
        <label>{t.merge}
          <select value={into} onChange={(e) => setInto(e.currentTarget.value)}>
            <option value="">–</option>
            {s.classes.value.filter((other) => other.id !== c.id).map((other) => <option key={other.id} value={other.id}>{other.name}</option>)}
          </select>
        </label>
        <div class="actions">
          <button type="button" onClick={() => { if (into) void s.removeClass(c.id, Number(into)).then(close); else if (confirm(t.removeSure(c.name, count))) void s.removeClass(c.id).then(close); }}>
            {into ? t.merge : t.remove}
          </button>
          <button type="submit" class="primary">{t.ok}</button>
        </div>
      </form>
    </Sheet>
  );
}
