/** Requests to the server. Addresses are relative to the page, so that it may stand below any prefix. */

/** What the server refused, or why it could not be asked; `message` is a sentence for people. */
export class Problem extends Error {
  constructor(
    message: string,
    readonly status = 0,
    readonly field = "",
    readonly remedy = "",
  ) {
    super(message);
  }
}

let listener: () => void = () => {};

/** Whom to tell that the server no longer knows who asks. */
export function onSignedOut(tell: () => void): void {
  listener = tell;
}

export function signedOut(): void {
  listener();
}

export function address(path: string): string {
  return `api/v1/${path}`;
}

/** `path`, with whatever of a query is not empty. */
export function asked(path: string, query: Iterable<[string, string]>): string {
  const text = new URLSearchParams([...query].filter(([, value]) => value !== "")).toString();
  return text ? `${path}?${text}` : path;
}

export function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return request<T>(path, signal ? { signal } : {});
}

export function post<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> {
  const headers = { "Content-Type": "application/json" };
  return request<T>(path, {
    method: "POST",
    headers,
    body: JSON.stringify(body),
    ...(signal ? { signal } : {}),
  });
}

async function request<T>(path: string, options: RequestInit): Promise<T> {
  let response: Response;
  try {
    response = await fetch(address(path), { credentials: "same-origin", ...options });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Problem("The server does not answer.", 0, "", "Is `axo ui` still running?");
  }
  if (response.ok) return response.status === 204 ? (undefined as T) : ((await response.json()) as T);
  if (response.status === 401 && path !== "login") signedOut();
  throw await problem(response);
}

async function problem(response: Response): Promise<Problem> {
  const said: unknown = await response.json().catch(() => null);
  const { detail, title, field, remedy } = (said ?? {}) as Record<string, string | undefined>;
  const message = detail ?? title ?? `The server answered ${response.status} ${response.statusText}`.trim();
  return new Problem(message, response.status, field, remedy);
}
