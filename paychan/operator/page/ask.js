/** The API behind the page. The token is in this tab's session storage, and nowhere else. */

const KEY = "paychan-operator-token";
const SECONDS_MAX = 10;

export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** A refusal (`code`, `status`), or no answer at all (status 0). */
export class Refused extends Error {
  constructor(status, code, text) {
    super(text);
    this.status = status;
    this.code = code;
  }
}

/** Ask, and return the answer's JSON. Raises Refused. */
export async function ask(path, { method = "GET", body } = {}) {
  const headers = { authorization: `Bearer ${token.get()}`, accept: "application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  let answer, content;
  try {
    answer = await fetch(`/operator/v1/${path}`, {
      method,
      headers,
      body: method === "GET" ? undefined : body === undefined ? "" : JSON.stringify(body),
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      signal: AbortSignal.timeout(SECONDS_MAX * 1000),
    });
    content = await answer.json();
  } catch {
    if (answer && !answer.ok) throw new Refused(answer.status, "unreadable", `The server answers ${answer.status}.`);
    throw new Refused(0, "away", "The server does not answer.");
  }
  if (!answer.ok) {
    const text = [content.title ?? content.error?.message, content.detail].filter(Boolean).join(". ");
    throw new Refused(answer.status, content.code ?? content.error?.code ?? "refused", text || `The server answers ${answer.status}.`);
  }
  return content;
}
