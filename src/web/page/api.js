// Talks to the daemon.

const BASE = new URL("../api/v1/", import.meta.url);
const KEPT = "haggle-token";

/** What went wrong, as the daemon said it. */
export class Refused extends Error {
  constructor(status, said) {
    super(said.help ? `${said.message} \u2014 ${said.help}` : said.message);
    this.status = status;
    this.word = said.error;
  }
}

let token = null;
try {
  token = sessionStorage.getItem(KEPT);
} catch {
  // Kept in memory alone.
}

/** Whether there is a token in this tab. */
export const hasToken = () => token !== null;

/** Remembers the token until the tab is closed; `null` forgets it. */
export function useToken(value) {
  token = value;
  try {
    if (value === null) sessionStorage.removeItem(KEPT);
    else sessionStorage.setItem(KEPT, value);
  } catch {
    // Kept in memory alone.
  }
}

function headers(more = {}) {
  return token === null ? more : { ...more, "X-Haggle-Token": token };
}

async function refusal(answer) {
  try {
    return new Refused(answer.status, await answer.json());
  } catch {
    return new Refused(answer.status, { error: "failed", message: `the daemon answered ${answer.status}` });
  }
}

/** Reads. A connection may have come to its end just now, so what fails without an answer is tried once more. */
export async function get(path) {
  const ask = () => fetch(new URL(path, BASE), { headers: headers(), cache: "no-cache", credentials: "same-origin" });
  const answer = await ask().catch(() => new Promise((again) => setTimeout(again, 300)).then(ask));
  if (!answer.ok) throw await refusal(answer);
  return answer.json();
}

/** Asks for a change. */
export async function post(path, body = {}) {
  const answer = await fetch(new URL(path, BASE), {
    method: "POST",
    headers: headers({ "Content-Type": "application/json" }),
    credentials: "same-origin",
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw await refusal(answer);
  return answer.json();
}

/** Follows the stream of events until `signal` is aborted or it breaks; `each` is told of every event. */
export async function follow(each, signal) {
  const answer = await fetch(new URL("events", BASE), { headers: headers(), cache: "no-store", credentials: "same-origin", signal });
  if (!answer.ok) throw await refusal(answer);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const events = text.split(/\r?\n\r?\n/);
    text = events.pop();
    for (const event of events) {
      const data = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
      // A comment only says that the stream lives.
      each(data.length > 0 ? JSON.parse(data.map((line) => line.slice(5)).join("\n")) : null);
    }
  }
}
