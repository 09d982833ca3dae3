import { render } from "preact";
import { AddImages, dropped } from "./adding";
import { Canvas } from "./canvas";
import { Dialogs, Toast } from "./dialogs";
import { Grid } from "./grid";
import { canvas, onKey } from "./keys";
import { Boxes, Classes, Filters } from "./panels";
import * as s from "./state";
import "./app.css";
import { t } from "./texts";

function App() {
  return (
    <>
      <Bar />
      {s.connection.value !== "ok" && (
        <div class="banner" role="alert">{s.connection.value === "lost" ? t.lost : t.loggedOut}</div>
      )}
      <main class={s.view.value} onDragOver={(e) => e.preventDefault()} onDrop={(e) => void dropped(e)}>
        {s.view.value === "grid" ? <aside><Filters /><Classes /><AddImages /></aside> : null}
        {s.view.value === "grid" ? <Grid /> : <Editor />}
        {s.view.value === "image" ? <aside><Boxes /><Classes /></aside> : null}
      </main>
      {!s.dialog.value && !s.conflict.value && <Toast />}
      <Dialogs />
    </>
  );
}

function Bar() {
  const info = s.project.value;
  const all = s.rows.value.length;
  return (
    <header class="bar">
      <button class="home" onClick={s.toGrid} aria-label={t.grid} title={t.grid}>
        <img src="/static/icon.svg" alt="" width="26" height="26" /><strong>{info?.name ?? ""}</strong>
      </button>
      <div class="progress" role="status">
        <progress value={s.doneCount.value} max={Math.max(all, 1)} aria-label={t.doneOf(s.doneCount.value, all)} />
        <span>{t.doneOf(s.doneCount.value, all)}</span>
      </div>
      <Busy />
      <span class="grow" />
      <button class="icon" disabled={!s.canUndo.value} onClick={() => void s.undo()} aria-label={t.undo} title={t.undo}>↶</button>
      <button class="icon" disabled={!s.canRedo.value} onClick={() => void s.redo()} aria-label={t.redo} title={t.redo}>↷</button>
      <nav>
        <button onClick={() => (s.dialog.value = "quality")}>{t.quality}</button>
        <button onClick={() => (s.dialog.value = "try")}>{t.tryIt}</button>
        <button onClick={() => (s.dialog.value = "export")}>{t.export}</button>
        <button onClick={() => (s.dialog.value = "more")}>{t.more}</button>
        <button class="primary" onClick={() => (s.dialog.value = "train")}>{t.train}</button>
      </nav>
      <button class="icon" onClick={theme} aria-label={t.theme} title={t.theme}>◐</button>
      <button class="icon" onClick={() => (s.dialog.value = "help")} aria-label={t.help} title={`${t.help} (?)`}>?</button>
    </header>
  );
}

function Busy() {
  const now = s.status.value;
  const f = now?.features;
  let text = "";
  if (s.waiting.value) text = t.saving(s.waiting.value);
  else if (now?.training.state === "running") text = `${t.train}: ${Math.round(now.training.fraction * 100)} %`;
  else if (now?.teaching.state === "learning") text = t.learning;
  else if (f && f.done < f.total) text = t.featuresBusy(f.done, f.total, f.seconds_left === null ? "" : t.left(t.seconds(f.seconds_left)));
  else if (now?.teaching.state === "ready") text = t.learned(now.teaching.images);
  else if (now) text = now.teaching.message || t.notYet;
  return <span class="busy" role="status">{text}</span>;
}

function Editor() {
  const o = s.open.value;
  const wide = s.visible.value.length;
  return (
    <div class="editor">
      <Canvas />
      <footer class="tools">
        <button onClick={() => void s.go(-1)} disabled={!s.neighbour(-1, false)} aria-label={t.previous} title={t.previous}>←</button>
        <span class="name" title={o?.name}>{o?.name}</span>
        <button onClick={() => canvas.fit()} class="small">{t.fit}</button>
        <button onClick={() => s.selected.value !== null && void s.tighten(s.selected.value)} disabled={s.selected.value === null} class="small">{t.tighten}</button>
        <button onClick={() => void s.copyPrevious()} class="small copy" disabled={!s.neighbour(-1, false)}>{t.copyPrevious}</button>
        {o?.done ? <button onClick={s.reopenImage}>{t.reopen}</button> : (
          <>
            {wide > 0 && <button onClick={() => void s.finishAndNext()}>{t.finish}</button>}
            <button class="primary" onClick={() => void s.acceptAllAndNext()}>
              {wide ? `${t.acceptAll} (${wide})` : o?.boxes.length ? t.finish : t.emptyFinish}
            </button>
          </>
        )}
        <button onClick={() => void s.go(1)} disabled={!s.neighbour(1, false)} aria-label={t.next} title={t.next}>→</button>
      </footer>
    </div>
  );
}

function theme(): void {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("sppnet-theme", root.dataset.theme);
}

// For scripts and tests: the state of the page, read only.
Object.assign(window, { __s: s });
const kept = localStorage.getItem("sppnet-theme");
if (kept) document.documentElement.dataset.theme = kept;
window.addEventListener("keydown", onKey);
window.addEventListener("hashchange", () => {
  const id = location.hash.slice(1);
  if (!id) s.view.value = "grid";
  else if (id !== s.open.value?.id || s.view.value === "grid") void s.openImage(id);
});
const root = document.getElementById("app");
if (root) {
  void s.loadAll().then(() => {
    root.textContent = "";
    render(<App />, root);
    s.listen();
    const id = location.hash.slice(1);
    if (id && s.rows.value.some((r) => r.id === id)) void s.openImage(id);
  }, (error: Error) => {
    root.textContent = error.message;
  });
}
