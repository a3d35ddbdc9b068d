// Asks the API, always by reading. A token, where one is needed, is kept for this tab alone.

const KEY = "fsm-sidecar-token";
const PATIENCE_MS = 10_000;

/** The API answered, but not with what was asked for. `type`: the problem's. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `the API answered with status ${status}`);
    this.status = status;
    this.type = problem.type;
    this.problem = problem;
  }

  get locked() {
    return this.status === 401 || this.status === 403;
  }
}

/** Whether a header can carry it. */
export const isToken = (text) => /^[!-~]+$/.test(text);

export const keepToken = (token) => sessionStorage.setItem(KEY, token);
export const hasToken = () => sessionStorage.getItem(KEY) !== null;

/** The response to a GET; its paths are relative, so that a proxy may put the page anywhere. Raises `Refused`. */
export async function open(path, { signal, headers = {} } = {}) {
  const token = sessionStorage.getItem(KEY);
  if (token) headers = { ...headers, Authorization: `Bearer ${token}` };
  const response = await fetch(path, { signal, headers, cache: "no-store", credentials: "omit", redirect: "error" });
  if (!response.ok && response.status !== 304) {
    throw new Refused(response.status, await response.json().catch(() => ({})));
  }
  return response;
}

/** What the API answers, as JSON. */
export async function get(path, options) {
  const response = await open(path, { signal: AbortSignal.timeout(PATIENCE_MS), ...options });
  return response.json();
}
