// What the server answers. See docs/studio-api.yaml.
import { t } from "./texts";

export type BoxRow = [number, number, number, number, number, string];
export interface ClassInfo { id: number; name: string; color: string; key: string }
export interface Suggested { classes: number[]; best: number; uncertainty: number }
export interface ImageRow {
  id: string; name: string; modified: number; done: boolean; version: number; classes: number[]; suggested: Suggested | null;
}
export type SuggestionRow = [number, number, number, number, number, number];
export interface ImageDetail {
  id: string; name: string; width: number; height: number; version: number; done: boolean;
  boxes: BoxRow[]; rejected: BoxRow[]; suggestions: SuggestionRow[] | null;
}
export interface Status {
  features: { done: number; total: number; seconds_left: number | null };
  teaching: { state: "waiting" | "learning" | "ready"; images: number; seconds: number | null; message: string };
  training: {
    state: "none" | "running" | "done" | "failed" | "cancelled"; stage: string; fraction: number;
    seconds_left: number | null; message: string; before: number | null; after: number | null; images: number | null;
  };
}
export interface ProjectInfo {
  name: string; folder: string; run: string; classes: ClassInfo[]; images: number; videos: string[]; status: Status;
}
export interface Windows { boxes: [number, number, number, number][]; scores: number[] }
export interface ClassQuality {
  id: number; kept: number; moved: number; deleted: number; added: number; boxes: number;
  ap: number | null; ap_low: number | null; ap_high: number | null; half_ap: number | null;
  trend: "rises" | "flat" | "unclear" | null; more: number | null;
}
export interface Disagreement {
  image: string; name: string; kind: "missing" | "class" | "nothing"; box: [number, number, number, number]; class: number;
  sure: number;
}
export interface Quality {
  classes: ClassQuality[]; images: number; folds: number; measured: number; disagreements: Disagreement[];
  curve: { images: number; ap: number }[];
}
export interface Detection { box: [number, number, number, number]; class: string; confidence: number }
export interface Compared { width: number; height: number; before: Detection[]; after: Detection[] }
export interface Statistics {
  classes: { id: number; boxes: number; images: number; width: number; height: number }[];
  odd: { image: string; name: string; box: [number, number, number, number]; class: number; kind: "twice" | "small" | "large" | "shape" }[];
}
export interface Found { width: number; height: number; detections: Detection[]; milliseconds: number; trained: boolean }

export interface Added { added: string[]; skipped: { name: string; why: string }[]; labelled: number; place: string | null }

export class Conflict extends Error {
  constructor(message: string, readonly present: { version: number; done: boolean; boxes: BoxRow[]; rejected: BoxRow[] }) {
    super(message);
  }
}
export class Refused extends Error {
  constructor(message: string, readonly status: number) {
    super(message);
  }
}

async function call<T>(method: string, path: string, body?: unknown, signal: AbortSignal | null = null): Promise<T> {
  const init: RequestInit = { method, credentials: "same-origin", signal };
  if (body instanceof Blob) init.body = body;
  else if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { "content-type": "application/json" };
  }
  const answer = await fetch(path, init).catch((error: Error) => {
    throw error.name === "AbortError" ? error : new Error(t.noAnswer); // browsers say "Failed to fetch"
  });
  const data: unknown = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    const { error, present } = data as { error?: string; present?: Conflict["present"] };
    if (answer.status === 409 && present) throw new Conflict(error ?? "", present);
    throw new Refused(error ?? `the server answered ${answer.status}`, answer.status);
  }
  return data as T;
}

const at = (id: string, what = ""): string => `/api/images/${encodeURIComponent(id)}${what}`;

export const api = {
  project: () => call<ProjectInfo>("GET", "/api/project"),
  images: () => call<{ images: ImageRow[] }>("GET", "/api/images"),
  image: (id: string) => call<ImageDetail>("GET", at(id)),
  windows: (id: string) => call<{ windows: Windows | null }>("GET", at(id, "/windows")),
  tighten: (id: string, box: readonly number[], classId: number) =>
    call<{ box: [number, number, number, number] | null }>("POST", at(id, "/tighten"), { box, class: classId }),
  putLabels: (id: string, body: { version: number; boxes: BoxRow[]; done: boolean; rejected: BoxRow[]; author: string }) =>
    call<{ version: number }>("PUT", at(id, "/labels"), body),
  addClass: (name: string, color: string, key: string) => call<ClassInfo>("POST", "/api/classes", { name, color, key }),
  editClass: (id: number, change: Partial<Omit<ClassInfo, "id">>) => call<ClassInfo>("PATCH", `/api/classes/${id}`, change),
  removeClass: (id: number, into?: number) =>
    call<{ boxes: number }>("DELETE", `/api/classes/${id}${into === undefined ? "" : `?into=${into}`}`),
  rescan: () => call<{ new: number }>("POST", "/api/rescan", {}),
  snapshots: () => call<{ snapshots: { name: string; why: string; images: number }[] }>("GET", "/api/snapshots"),
  snapshot: () => call<{ name: string }>("POST", "/api/snapshots", {}),
  restore: (name: string) => call<object>("POST", "/api/snapshots/restore", { name }),
  addFile: (name: string, file: Blob, signal: AbortSignal) =>
    call<Added>("POST", `/api/images?name=${encodeURIComponent(name)}`, file, signal),
  /** Annotations that came with images; `places` says where each of these images is now. */
  addLabels: (files: { name: string; file: Blob }[], places: Record<string, string>, signal: AbortSignal) => {
    const head = JSON.stringify({ files: files.map(({ name, file }) => [name, file.size]), images: places });
    return call<Added>("POST", "/api/labels", new Blob([`${head}\n`, ...files.map(({ file }) => file)]), signal);
  },
  takeFrames: (name: string) => call<Added>("POST", "/api/videos", { name }),
  stopFrames: () => call<object>("DELETE", "/api/videos"),
  statistics: () => call<Statistics>("GET", "/api/statistics"),
  compare: (id: string) => call<Compared>("GET", at(id, "/compare")),
  quality: () => call<Quality>("GET", "/api/quality"),
  train: () => call<object>("POST", "/api/train", {}),
  cancelTraining: () => call<object>("DELETE", "/api/train"),
  detect: (image: Blob) => call<Found>("POST", "/api/detect", image),
  thumbnail: (id: string) => at(id, "/thumbnail"),
  view: (id: string) => at(id, "/view"),
};
