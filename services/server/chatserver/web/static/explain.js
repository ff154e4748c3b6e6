/**
 * Why a WebSocket was refused. A browser hides the answer to a handshake that fails, so the page requests the same
 * address without WebSocket: what refuses the one connection refuses the other, too, and with a body that can be read.
 */

/** The page waits for an explanation no longer than this. */
const ANSWER_MS = 5_000;

/**
 * @typedef {object} Explanation
 * @property {string} reason  a sentence for the user
 * @property {string} code  of the server's error, or ""
 * @property {number} retrySeconds  no sooner try makes sense
 */

/**
 * Ask the server at this address why it refuses a WebSocket. Never rejects.
 * @param {string} url  of the WebSocket  @returns {Promise<Explanation>}
 */
export async function explain(url, fetch = globalThis.fetch) {
  const unreachable = { reason: "The server can't be reached.", code: "", retrySeconds: 0 };
  try {
    const signal = AbortSignal.timeout(ANSWER_MS);
    // Without credentials, browsers take a connection of its own: one that is open already would not be refused.
    const options = { cache: "no-store", credentials: "omit", signal };
    const answer = await fetch(url.replace(/^ws/, "http"), options);
    const { message, code = "" } = await errorOf(answer);
    const retrySeconds = Number(answer.headers.get("Retry-After")) || 0;
    return { reason: typeof message === "string" ? message : advice(answer, url), code: `${code}`, retrySeconds };
  } catch {
    return unreachable;
  }
}

/** The server's error in the body of the answer; {} if it has none. */
async function errorOf(answer) {
  if (!answer.headers.get("Content-Type")?.startsWith("application/json")) return {};
  const object = await answer.json().catch(() => null);
  return object?.type === "error" ? object : {};
}

/** What to do about an answer that is not the server's error. */
function advice({ status }, url) {
  if ([502, 503, 504].includes(status)) {
    return `The proxy before the server answers ${status}: the server does not run, or starts just now.`;
  }
  if (status === 429) return "There are too many requests from your address.";
  if (status >= 500) return `The server answers ${status}: it has a fault.`;
  if (status === 401 || status === 403) {
    return `The server, or a proxy before it, refuses this browser (${status}). Ask the operator of the server.`;
  }
  const origin = url.replace(/^ws/, "http").replace(/\/$/, "");
  return (
    "The server answers, but it or a proxy before it refuses the WebSocket of this page. If this goes on, tell the " +
    `operator: the proxy must pass on WebSocket and Host, or CHAT_WEB_ORIGINS must have ${origin}.`
  );
}
