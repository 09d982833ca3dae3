// Images that are added by the page: chosen files, a folder, or what is dropped on it.
import { signal } from "@preact/signals";
import { api, type Added } from "./api";
import * as s from "./state";
import { t } from "./texts";

interface Named { name: string; file: File }

const progress = s.adding;
const left = signal<{ name: string; why: string }[]>([]); // files that were not taken, and why
const ANNOTATION = /\.(xml|json|txt|csv|tsv|ya?ml|data|names|labels)$/i;
let stopping = new AbortController();

/** Take one thing after the other, and say what became of them. */
async function takeAll(todo: { name: string; take: () => Promise<Added> }[]): Promise<void> {
  if (!todo.length || progress.value) return;
  left.value = [];
  stopping = new AbortController();
  let added = 0;
  let labelled = 0;
  try {
    for (const [i, { name, take }] of todo.entries()) {
      if (stopping.signal.aborted) {
        left.value = [...left.value, { name, why: t.stopped(todo.length - i) }];
        break;
      }
      progress.value = { done: i, total: todo.length };
      try {
        const answer = await take();
        added += answer.added.length;
        labelled += answer.labelled;
        left.value = [...left.value, ...answer.skipped];
      } catch (error) {
        const why = stopping.signal.aborted ? t.stopped(1) : error instanceof Error ? error.message : String(error);
        left.value = [...left.value, { name, why: why.startsWith(`${name}: `) ? why.slice(name.length + 2) : why }];
      }
    }
    await s.tell(api.rescan());
  } finally {
    progress.value = null;
  }
  s.toast.value = { text: t.addedFiles(added, left.value.length) + (labelled ? t.labelledToo(labelled) : "") };
  if (left.value.length) s.dialog.value = "more";
}

/** Images first; then the annotations that came with them, which need to know where the images are now. */
async function addAll(files: Named[]): Promise<void> {
  const places: Record<string, string> = {};
  const labels = files.filter(({ name }) => ANNOTATION.test(name));
  const others = files.filter(({ name }) => !ANNOTATION.test(name));
  const todo = others.map(({ name, file }) => ({
    name,
    take: async () => {
      const answer = await api.addFile(name, file, stopping.signal);
      if (answer.place !== null) places[name] = answer.place;
      return answer;
    },
  }));
  const last = { name: t.labelsWord, take: () => api.addLabels(labels, places, stopping.signal) };
  await takeAll(labels.length ? [...todo, last] : todo);
}

function stop(): void {
  stopping.abort();
  void api.stopFrames();
}

const chosen = (list: FileList | null): Named[] =>
  [...(list ?? [])].map((file) => ({ name: file.webkitRelativePath || file.name, file })).filter(({ name }) => !/(^|\/)\./.test(name));

async function walk(entry: FileSystemEntry, into: Named[]): Promise<void> {
  if (entry.name.startsWith(".")) return;
  if (entry.isFile) {
    const file = await new Promise<File>((done, fail) => (entry as FileSystemFileEntry).file(done, fail));
    into.push({ name: entry.fullPath.replace(/^\//, ""), file });
  } else {
    const reader = (entry as FileSystemDirectoryEntry).createReader();
    for (;;) {
      const some = await new Promise<FileSystemEntry[]>((done, fail) => reader.readEntries(done, fail));
      if (!some.length) return;
      for (const one of some) await walk(one, into);
    }
  }
}

/** Files and folders that were dropped on the page. */
export async function dropped(event: DragEvent): Promise<void> {
  event.preventDefault();
  const entries = [...(event.dataTransfer?.items ?? [])].map((item) => item.webkitGetAsEntry()).filter((e) => e !== null);
  const files: Named[] = [];
  for (const entry of entries) await walk(entry, files);
  await addAll(files);
}

export function AddImages() {
  const now = progress.value;
  const videos = s.project.value?.videos ?? [];
  const take = (event: Event): void => {
    const input = event.currentTarget as HTMLInputElement;
    void addAll(chosen(input.files));
    input.value = "";
  };
  return (
    <section class="panel add-images">
      <h2>{t.addImages}</h2>
      {now ? (
        <>
          <p role="status"><progress value={now.done} max={now.total} aria-label={t.addImages} /> {t.adding(now.done + 1, now.total)}</p>
          <button onClick={stop}>{t.trainStop}</button>
        </>
      ) : (
        <div class="choices">
          <label class="button">{t.chooseFiles}<input type="file" multiple accept="image/*,video/*,.zip,.xml,.json,.txt,.csv,.tsv,.yaml,.yml,.data,.names" onChange={take} /></label>
          <label class="button">{t.chooseFolder}<input type="file" multiple {...{ webkitdirectory: true }} onChange={take} /></label>
        </div>
      )}
      <p class="hint">{t.addHint}</p>
      {!now && videos.length > 0 && (
        <>
          <p class="hint" title={videos.join("\n")}>{t.videosHere(videos.length, videos[0] ?? "")}</p>
          <button onClick={() => void takeAll(videos.map((name) => ({ name, take: () => api.takeFrames(name) })))}>{t.takeFrames}</button>
        </>
      )}
    </section>
  );
}

export function LeftOut() {
  if (!left.value.length) return null;
  return (
    <>
      <h2>{t.leftOut}</h2>
      <ul class="stats">{left.value.slice(0, 50).map((f, i) => <li key={i}>{f.name}: {f.why}</li>)}</ul>
      {left.value.length > 50 && <p class="hint">{t.andMore(left.value.length - 50)}</p>}
    </>
  );
}
